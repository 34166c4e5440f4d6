"""A stand-in for Firebase Cloud Messaging: the OAuth 2.0 token endpoint, and messages:send of HTTP v1."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from payflow_dev.vendors.desk import Mood
from payflow_dev.vendors.http import HttpVendorServer, json_answer

# Tokens that play a part: an app that was removed, and what was never a token.
GONE: Final = "gone-"
NO_TOKEN: Final = "no-token"  # noqa: S105 - not a secret
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
_PAYLOAD_MAX: Final = 4096
_FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST: Final = "type.googleapis.com/google.rpc.BadRequest"


class FcmServer(HttpVendorServer):
    """One project's API, with its service account. `token_life_s`: of access tokens, which are another server's matter
    and have no moods."""

    undisturbed = HttpVendorServer.undisturbed | {"/token"}

    def __init__(self, *, project_id: str = "payflow-demo", token_life_s: int = 3599) -> None:
        super().__init__()
        self.project_id = project_id
        self.token_life_s = token_life_s
        self.client_email = f"payflow@{project_id}.iam.gserviceaccount.com"
        self.tokens_given = 0
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._access: dict[str, float] = {}

    @property
    def service_account(self) -> str:
        """The key file that the console gives out; its token endpoint is here."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        content = {
            "type": "service_account",
            "project_id": self.project_id,
            "private_key_id": "stand-in",
            "private_key": pem,
            "client_email": self.client_email,
            "token_uri": f"{self.url}/token",
        }
        return msgspec.json.encode(content).decode()

    def revoke_tokens(self) -> None:
        """Accept none of the access tokens that were given out."""
        self._access.clear()

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/token", self._token), web.post("/v1/projects/{project_and_method:.+}", self._send)]

    def refusal(self, mood: Mood) -> web.Response:
        if mood is Mood.LOCKED:
            return _error(403, "PERMISSION_DENIED", "Permission denied on resource project.", code="")
        if mood is Mood.BUSY:
            words = "Quota exceeded for quota metric 'Send requests'."
            return _error(429, "RESOURCE_EXHAUSTED", words, code="QUOTA_EXCEEDED", headers=self.retry_headers())
        words = "The service is currently unavailable."
        return _error(503, "UNAVAILABLE", words, code="UNAVAILABLE", headers=self.retry_headers())

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            if form.get("grant_type") != _GRANT:
                raise ValueError("grant_type")
            key = RSAKey.import_key(
                self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )
            token = jwt.decode(str(form.get("assertion", "")), key, algorithms=["RS256"])
            self._check(token.claims)
        except (JoseError, ValueError) as error:
            return json_answer(400, {"error": "invalid_grant", "error_description": str(error)})
        access_token = f"ya29.{secrets.token_urlsafe(48)}"
        self._access[access_token] = time.time() + self.token_life_s
        self.tokens_given += 1
        return json_answer(200, {"access_token": access_token, "expires_in": self.token_life_s, "token_type": "Bearer"})

    def _check(self, claims: dict[str, Any]) -> None:
        now = time.time()
        wrong = [
            name
            for name, is_right in (
                ("iss", claims.get("iss") == self.client_email),
                ("scope", claims.get("scope") == _SCOPE),
                ("aud", claims.get("aud") == f"{self.url}/token"),
                ("exp", now < claims.get("exp", 0) <= claims.get("iat", 0) + 3600),
            )
            if not is_right
        ]
        if wrong:
            raise ValueError(f"Invalid JWT: {', '.join(wrong)}")

    async def _send(self, request: web.Request) -> web.Response:
        if request.match_info["project_and_method"] != f"{self.project_id}/messages:send":
            return _error(404, "NOT_FOUND", "The requested URL was not found.", code="")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._access.get(bearer, 0.0) <= time.time():
            words = "Request had invalid authentication credentials."
            return _error(401, "UNAUTHENTICATED", words, code="")
        try:
            message = msgspec.json.decode(await request.read())["message"]
            token, shown = message["token"], message["notification"]
        except (msgspec.DecodeError, KeyError, TypeError):
            return _invalid("message", "Recipient of the message is not set.")
        if not isinstance(token, str) or token == NO_TOKEN:
            return _invalid("message.token", "The registration token is not a valid FCM registration token")
        if token.startswith(GONE):
            return _error(404, "NOT_FOUND", "Requested entity was not found.", code="UNREGISTERED")
        if len(msgspec.json.encode(shown)) > _PAYLOAD_MAX:
            return _invalid("message", "Android message is too big")
        name = f"projects/{self.project_id}/messages/{secrets.token_hex(8)}"
        self.desk.take(
            recipient=token, subject=shown.get("title", ""), text=shown.get("body", ""), reference=name, **message
        )
        return json_answer(200, {"name": name})


def _invalid(field: str, words: str) -> web.Response:
    violation = {"@type": _BAD_REQUEST, "fieldViolations": [{"field": field, "description": words}]}
    return _error(400, "INVALID_ARGUMENT", words, code="INVALID_ARGUMENT", details=[violation])


def _error(
    status: int,
    name: str,
    message: str,
    *,
    code: str,
    details: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    ours = [{"@type": _FCM_ERROR, "errorCode": code}] if code else []
    content = {"code": status, "message": message, "status": name, "details": [*ours, *(details or [])]}
    return json_answer(status, {"error": content}, headers)
