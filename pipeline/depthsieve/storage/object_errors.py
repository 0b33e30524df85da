"""What an object store's library says, as an :class:`OSError` of one line in words of our own.

Its texts hold whole requests with their queries (a token, where a store is used through signed URLs) and whatever the
server answered. Nothing of them is passed on but a status number, the server's own word for what is wrong, and the name
of a region. What is known to help is said with it.
"""

import contextlib
import datetime
import email.utils
import errno
import re
import time
import urllib.error
import urllib.request

IN_KEY = errno.EILSEQ
"""Errno of a key that the library will not name."""

_PERMANENT = (IN_KEY, errno.ENOENT, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.ENOTSUP)
_BUSY = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "OperationAborted")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>|\"(?:code|status)\": ?\"([A-Za-z0-9_]{1,60})\"")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,30})</Region>|expecting '([a-z0-9-]{1,30})'")
_SERVER_TIME = re.compile(r"<ServerTime>([0-9TZ:.+-]{10,40})</ServerTime>")

_SKEWED = ("RequestTimeTooSkewed", "RequestExpired")

_RENEW = "these credentials have expired; renew them (such as by aws sso login, or a new AWS_SESSION_TOKEN)"
_REMEDIES = {
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "InvalidToken": "AWS_SESSION_TOKEN is not valid, or not of this access key",
    "InvalidAccessKeyId": "this server does not know the access key; check AWS_ACCESS_KEY_ID, and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key is not that of the access key; check AWS_SECRET_ACCESS_KEY",
    "AuthenticationFailed": "check AZURE_STORAGE_ACCOUNT_NAME and its key or token, and this machine's clock",
    "AuthorizationPermissionMismatch": "this identity needs the role Storage Blob Data Contributor",
}
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage")
_NEEDED = (
    ("list-type=2", "listing needs the permission s3:ListBucket on the bucket"),
    ("performing GET", "reading needs the permissions s3:GetObject and s3:ListBucket"),
    ("performing HEAD", "reading needs the permissions s3:GetObject and s3:ListBucket"),
    ("performing PUT", "writing needs the permission s3:PutObject"),
    ("performing POST", "writing and removing need the permissions s3:PutObject and s3:DeleteObject"),
    ("performing DELETE", "removing needs the permission s3:DeleteObject"),
)
_UNREACHED = (
    ("dns error", "its name is not known here; check the endpoint, and this machine's DNS"),
    ("ConnectionRefused", "it refuses connections; is the server up, and is this its port?"),
    ("NetworkUnreachable", "this machine has no route to it"),
    ("HostUnreachable", "this machine has no route to it"),
    ("InvalidContentType", "it does not speak TLS; is it an http:// endpoint?"),
    ("certificate", "its certificate is not trusted here"),
)


def fault_of(error: Exception, key: str, root: str, bucket: str, endpoint: str) -> OSError:
    """The error to raise for ``error``, met at ``key`` of ``root`` in ``bucket`` on a server at ``endpoint``."""
    where = f"{root}/{key}" if key else root
    text = str(error)
    kind = type(error).__name__
    status = found[1] if (found := _STATUS.search(text)) else ""
    code = next((word for word in found.groups() if word), "") if (found := _CODE.search(text)) else ""
    said = " ".join(word for word in (status, code) if word)
    if code in ("NoSuchBucket", "ContainerNotFound") or (status == "404" and "performing list" in text):
        return OSError(errno.ENODEV, f"there is no bucket {bucket!r} on {endpoint}", where)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", where)
    if kind == "InvalidPathError" or (isinstance(error, ValueError) and "parse path" in text):
        return OSError(IN_KEY, "a key has an empty part, '.', '..' or a control character", where)
    if (
        "/latest/api/token" in text
        or "/latest/meta-data" in text
        or "computeMetadata" in text
        or "/oauth2/token" in text
    ):
        return OSError(
            errno.EIO, "no credentials in the environment, and this machine has no role to take them from", where
        )
    if missing := re.search(r"Missing (AccessKeyId|SecretAccessKey)", text):
        return OSError(errno.EIO, f"no credentials: {missing[1]} is not set", where)
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in ("401", "403"):
        remedy = _remedy_of_denial(text, code, endpoint)
        return PermissionError(errno.EACCES, f"access denied ({said or kind}){remedy and ': '}{remedy}", where)
    if kind == "NotSupportedError" or status == "501":
        return OSError(errno.ENOTSUP, f"{endpoint} cannot do this ({said or kind})", where)
    if "redirect" in text or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        region = next((word for word in found.groups() if word), "") if (found := _REGION.search(text)) else ""
        where_to = f"in region {region}: set AWS_REGION={region}" if region else "in another region: set AWS_REGION"
        return OSError(errno.EIO, f"bucket {bucket!r} is {where_to}", where)
    if status:
        said += f": {_REMEDIES[code]}" if code in _REMEDIES else ""
        said += ": no space is left there" if status == "507" or code in _FULL else ""
        return OSError(errno.EIO if _passes(status, code) else errno.EINVAL, f"{endpoint} answered {said}", where)
    if "timed out" in text or "timeout" in text.replace("retry_timeout", "") or "kind: Timeout" in text:
        return TimeoutError(errno.ETIMEDOUT, f"{endpoint} does not answer", where)
    if "error sending request" in text:
        why = next((words for sign, words in _UNREACHED if sign in text), "")
        return ConnectionRefusedError(errno.ECONNREFUSED, f"cannot reach {endpoint}{why and ': '}{why}", where)
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror or kind, where)  # of a file on this disk
    return OSError(errno.EIO, f"{endpoint}: the transfer broke off ({kind})", where)


def _remedy_of_denial(text: str, code: str, endpoint: str) -> str:
    if code in _SKEWED:
        server = _server_time(text, endpoint)
        off = "" if server is None else f": it is {_off(time.time() - server)} the server's"
        return f"this machine's clock is wrong; set it{off}"
    if code in _REMEDIES:
        return _REMEDIES[code]
    if code in ("AccessDenied", "AccessDeniedException"):
        return next((words for sign, words in _NEEDED if sign in text), "")
    return ""


def _server_time(text: str, endpoint: str) -> float | None:
    """What time it is at a server, by its answer, or by the date of another one; None where neither says."""
    if said := _SERVER_TIME.search(text):
        with contextlib.suppress(ValueError):
            return datetime.datetime.fromisoformat(said[1]).timestamp()
    if not endpoint.startswith(("http://", "https://")):
        return None
    with contextlib.suppress(OSError, ValueError, TypeError):
        try:
            with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=2) as answer:
                date = answer.headers["Date"]
        except urllib.error.HTTPError as refusal:  # which has a date, too
            date = refusal.headers["Date"]
        return email.utils.parsedate_to_datetime(date).timestamp()
    return None


def _off(seconds: float) -> str:
    """``15 min ahead of``, ``2 h 5 min behind``."""
    minutes = round(abs(seconds) / 60)
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"{hours}{minutes % 60} min {'ahead of' if seconds > 0 else 'behind'}"


def is_transient(error: OSError) -> bool:
    """Whether the same call may do later."""
    return error.errno not in _PERMANENT


def _passes(status: str, code: str) -> bool:
    return status in ("408", "409", "429") or status.startswith("5") or code in _BUSY or "Token" in code
