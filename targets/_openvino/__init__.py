"""Parts of the OpenVINO target."""
