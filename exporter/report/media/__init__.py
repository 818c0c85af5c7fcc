"""What people look at and listen to, as data in the page: pictures, sound with its spectrogram, colours of maps."""
