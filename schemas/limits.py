"""Bounds that both services, their clients' messages and the tests agree on.

Every number has its unit in its name. What an operator may change is a setting that starts from here.
"""

from typing import Final

# Tokens (design §4, security J10, J12)
TOKEN_DURATION_DEFAULT_S: Final = 120
TOKEN_DURATION_MAX_S: Final = 3600
TOKEN_MAX_BYTES: Final = 4096
TOKEN_HEADER_MAX_BYTES: Final = 512
TOKEN_LEEWAY_S: Final = 10
SESSION_DEFAULT_S: Final = 3600
SESSION_MAX_S: Final = 24 * 3600
ALLOWED_APPS_MAX: Final = 32
APP_MAX_CHARS: Final = 200
SUBJECT_MAX_CHARS: Final = 128
PINNED_MAX: Final = 2**53 - 1  # every JSON reader keeps it exact (RFC 8259 §6)
KEY_NAME_MAX_CHARS: Final = 200
KEY_GRACE_MAX_S: Final = 30 * 24 * 3600
HTTP_BODY_MAX_BYTES: Final = 64 * 1024
ID_MAX_CHARS: Final = 64  # of a key or a token
EVENTS_PER_REPORT_MAX: Final = 64  # of the longest events, a report is within HTTP_BODY_MAX_BYTES
REVOCATIONS_PER_PAGE: Final = 1000
AUDIT_PAGE_MAX: Final = 1000
USAGE_PAGE_MAX: Final = 10_000
TIME_MAX_S: Final = 253402300799  # the end of the year 9999, the last that YYYY-MM-DD can say

# Realtime messages (contract §2e, security W6, W8)
MAX_BUFFERING_MAX: Final = 60
MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024
MESSAGE_FRAGMENTS_MAX: Final = 1024
MESSAGE_DEPTH_MAX: Final = 16
CLOSE_REASON_MAX_BYTES: Final = 123  # RFC 6455 §5.5: a control frame carries 125, two of them the code

# Generation
PROMPT_MAX_CHARS: Final = 4000
REQUEST_ID_MAX_CHARS: Final = 200
NUM_INFERENCE_STEPS_MAX: Final = 50
NUM_IMAGES_MAX: Final = 8
GUIDANCE_SCALE_MAX: Final = 20.0
SEED_MAX: Final = 2**63 - 1
IMAGE_SIDE_MAX_PX: Final = 14142  # fal's ImageSize bound (contract §6)
IMAGE_BYTES_MAX: Final = 12 * 1024 * 1024
IMAGE_INPUT_PIXELS_MAX: Final = 4096 * 4096  # a phone's camera makes 12 megapixels
IMAGE_INPUT_SIDE_MAX_PX: Final = 16384
