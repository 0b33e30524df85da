"""What an object store's library says, as an :class:`OSError` of one line in words of our own.

Its texts hold whole requests with their queries (a token, where a store is used through signed URLs) and whatever the
server answered. Nothing of them is passed on but a status number and the server's own word for what is wrong.
"""

import errno
import re

IN_KEY = errno.EILSEQ
"""Errno of a key that the library will not name."""

_PERMANENT = (IN_KEY, errno.ENOENT, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.ENOTSUP)
_BUSY = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "OperationAborted")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>|\"(?:code|status)\": ?\"([A-Za-z0-9_]{1,60})\"")


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
    if code == "RequestTimeTooSkewed":
        return PermissionError(errno.EACCES, f"access denied ({said}): this machine's clock is wrong; set it", where)
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in ("401", "403"):
        return PermissionError(errno.EACCES, f"access denied ({said or kind})", where)
    if kind == "NotSupportedError" or status == "501":
        return OSError(errno.ENOTSUP, f"{endpoint} cannot do this ({said or kind})", where)
    if "redirect" in text or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return OSError(errno.EIO, f"bucket {bucket!r} is in another region: set AWS_REGION", where)
    if status:
        return OSError(errno.EIO if _passes(status, code) else errno.EINVAL, f"{endpoint} answered {said}", where)
    if "timed out" in text or "timeout" in text.replace("retry_timeout", ""):
        return TimeoutError(errno.ETIMEDOUT, f"{endpoint} does not answer", where)
    if "error sending request" in text:
        return ConnectionRefusedError(errno.ECONNREFUSED, f"cannot reach {endpoint}", where)
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror or kind, where)  # of a file on this disk
    return OSError(errno.EIO, f"{endpoint}: the transfer broke off ({kind})", where)


def is_transient(error: OSError) -> bool:
    """Whether the same call may do later."""
    return error.errno not in _PERMANENT


def _passes(status: str, code: str) -> bool:
    return status in ("408", "409", "429") or status.startswith("5") or code in _BUSY or "Token" in code
