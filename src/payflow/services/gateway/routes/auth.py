"""Signing in and out, and the public keys."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency

from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.security import OPEN, current_user
from payflow.services.gateway.routes.services import FromServices
from payflow.services.gateway.usecases.sessions import SignedIn, SignIn, SignOut

Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class LoginBody(Body):
    """Name and password."""

    username: Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=["demo"])]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=256, examples=["password123"])]


class RefreshBody(Body):
    """The refresh token of the last answer."""

    refresh_token: Secret


class LogoutBody(Body):
    """The refresh token of the session to end, if it is another than the access token's own."""

    refresh_token: Secret | None = None


class TokenAnswer(msgspec.Struct, kw_only=True):
    """An access token, its lifetime in seconds, and the refresh token for the next one (good for one use)."""

    success: Literal[True] = True
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a scheme's name
    expires_in: int
    refresh_token: str


class Done(msgspec.Struct):
    """It was done."""

    success: Literal[True] = True


class JsonWebKey(msgspec.Struct):
    """A public key that verifies access tokens (RFC 7517)."""

    kty: str
    crv: str
    x: str
    y: str
    kid: str
    use: str
    alg: str


class JsonWebKeySet(msgspec.Struct):
    """The public keys, the signing one first."""

    keys: list[JsonWebKey]


_LOGIN: Final = StrictReader(LoginBody, required=("username", "password"))
_REFRESH: Final = StrictReader(RefreshBody, required=("refresh_token",))
_LOGOUT: Final = StrictReader(LogoutBody)


@post(
    "/auth/login",
    status_code=200,
    opt={**OPEN, "body": LoginBody, "errors": ("INVALID_CREDENTIALS",)},
    tags=["Sign-in"],
    summary="Sign in",
)
async def login(request: AnyRequest, services: FromServices) -> TokenAnswer:
    """Exchange user name and password for an access token and a refresh token."""
    body = await read_json(request, _LOGIN)
    attempt = SignIn(username=body.username, password=body.password)
    return _tokens(first(await services.gateway.sign_in([attempt])))


@post(
    "/auth/refresh",
    status_code=200,
    opt={**OPEN, "body": RefreshBody, "errors": ("INVALID_TOKEN", "TOKEN_REVOKED")},
    tags=["Sign-in"],
    summary="Renew",
)
async def refresh(request: AnyRequest, services: FromServices) -> TokenAnswer:
    """Exchange a refresh token for a new pair. A refresh token is good for one use: a second use ends the session."""
    body = await read_json(request, _REFRESH)
    return _tokens(first(await services.gateway.refresh([body.refresh_token])))


@post(
    "/auth/logout",
    status_code=200,
    opt={"body": LogoutBody, "body_is_optional": True},
    tags=["Sign-in"],
    summary="Sign out",
)
async def logout(request: AnyRequest, services: FromServices) -> Done:
    """Revoke the access token and end its session, at once and everywhere. The body may be left out."""
    user = current_user(request.scope)
    body = await read_json(request, _LOGOUT) if await request.body() else LogoutBody()
    first(await services.gateway.sign_out([SignOut(identity=user, refresh_token=body.refresh_token)]))
    return Done()


@get("/.well-known/jwks.json", opt={**OPEN}, tags=["Sign-in"], summary="Public keys")
async def jwks(keys: NamedDependency[FileKeyRing]) -> Response[JsonWebKeySet]:
    """The keys that verify access tokens (JWK Set, RFC 7517)."""
    # Short: a key that was rotated in must be found by whoever keeps this answer.
    return Response(
        msgspec.Raw(keys.jwks),  # type: ignore[arg-type]
        media_type="application/json",
        headers={"cache-control": "public, max-age=60"},
    )


def _tokens(signed_in: SignedIn) -> TokenAnswer:
    return TokenAnswer(
        access_token=signed_in.access_token,
        expires_in=signed_in.expires_in_s,
        refresh_token=signed_in.refresh_token,
    )


HANDLERS = [login, refresh, logout, jwks]
