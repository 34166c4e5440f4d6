"""Nonces from the operating system's random numbers."""

from __future__ import annotations

import secrets

from payflow.services.otp.domain import NONCE_BYTES


class SystemEntropy:
    """See ports.Entropy."""

    def nonce(self) -> bytes:
        return secrets.token_bytes(NONCE_BYTES)
