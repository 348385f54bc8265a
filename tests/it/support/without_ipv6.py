"""Runs a program for which socket(AF_INET6, ...) fails with EAFNOSUPPORT, as on a kernel without IPv6 (seccomp(2), x86-64)."""
import ctypes
import errno
import os
import struct
import sys

SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
AF_INET6, SYS_SOCKET = 10, 41
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06


def instruction(code, k, is_true=0, is_false=0):
    return struct.pack("HBBI", code, is_true, is_false, k)


program = b"".join([
    instruction(LOAD, 0),  # the number of the system call
    instruction(EQUAL, SYS_SOCKET, 0, 3),
    instruction(LOAD, 16),  # its first argument
    instruction(EQUAL, AF_INET6, 0, 1),
    instruction(RETURN, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
    instruction(RETURN, SECCOMP_RET_ALLOW),
])
code = ctypes.create_string_buffer(program)
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header), 0, 0)]:
    if libc.prctl(*(ctypes.c_ulong(value) for value in call)) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
