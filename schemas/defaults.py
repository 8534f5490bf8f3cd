"""What both services take for granted until a setting says otherwise: they must agree, or no token opens anything."""

from typing import Final

ISSUER: Final = "lcm-realtime/authsvc"
AUDIENCE: Final = "lcm-realtime/runner"
