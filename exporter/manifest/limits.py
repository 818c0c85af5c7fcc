"""How large and how deep anything in a manifest may be, so that reading one allocates within bounds."""

MAX_BYTES = 4 << 20
MAX_REPORT_BYTES = 64 << 20  # with every timing of a long profile
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_ENTRIES = 10_000
MAX_TEXT = 8192
MAX_NAME = 256
MAX_SIZE = 1 << 31  # of one dim
MAX_ELEMENTS = 1 << 36  # of one tensor at its largest
MAX_RANK = 16
MAX_FILE_BYTES = 1 << 44
MAX_COUNT = 1 << 31  # of steps, repetitions, threads
MAX_WHOLE = (1 << 64) - 1  # any other whole number
MAX_PATH, MAX_COMPONENT, MAX_COMPONENTS = 240, 128, 8
