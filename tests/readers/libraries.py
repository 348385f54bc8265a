"""What OpenSSL and GnuTLS make of certificates and of bundles, by their own loaders; for tests/it/readers.rs.

In, on stdin: frames, each a length of four bytes (big-endian) and as many bytes. Out: a line for each.

    libraries.py openssl|gnutls certificates   each frame is the DER of one certificate: `ok` or `refused`, with a reason;
                                               `ok invalid` where OpenSSL takes no chain that ends in it
    libraries.py openssl|gnutls|python bundles each frame is a PEM file: `ok N` with the certificates loaded, or `refused`
    libraries.py openssl|gnutls|python version

`python` is the ssl module, as Python programs use it. The libraries are those that the dynamic loader finds: another version is
asked by running Python under the loader of another system.
"""

import ctypes
import os
import ssl
import struct
import sys

POINTER = ctypes.c_void_p


class OpenSSL:
    def __init__(self):
        self.lib = lib = ctypes.CDLL("libcrypto.so.3")
        for name in ("d2i_X509", "X509_STORE_new", "X509_STORE_get0_objects"):
            getattr(lib, name).restype = POINTER
        lib.d2i_X509.argtypes = [POINTER, POINTER, ctypes.c_long]
        lib.X509_get_extension_flags.argtypes = [POINTER]
        lib.X509_free.argtypes = [POINTER]
        lib.X509_STORE_load_file.argtypes = [POINTER, ctypes.c_char_p]
        lib.X509_STORE_get0_objects.argtypes = [POINTER]
        lib.X509_STORE_free.argtypes = [POINTER]
        lib.OPENSSL_sk_num.argtypes = [POINTER]
        lib.OPENSSL_sk_value.restype = POINTER
        lib.OPENSSL_sk_value.argtypes = [POINTER, ctypes.c_int]
        lib.X509_OBJECT_get0_X509.restype = POINTER
        lib.X509_OBJECT_get0_X509.argtypes = [POINTER]
        lib.ERR_reason_error_string.restype = ctypes.c_char_p
        lib.ERR_reason_error_string.argtypes = [ctypes.c_ulong]
        lib.ERR_get_error.restype = ctypes.c_ulong
        lib.OpenSSL_version.restype = ctypes.c_char_p

    def version(self):
        return self.lib.OpenSSL_version(0).decode()

    def why(self):
        reason = self.lib.ERR_reason_error_string(self.lib.ERR_get_error())
        self.lib.ERR_clear_error()
        return (reason or b"?").decode()

    def certificate(self, der):
        # d2i_X509 ignores bytes after the certificate, and so does this.
        buffer = ctypes.create_string_buffer(der, len(der) or 1)
        at = POINTER(ctypes.addressof(buffer))
        found = self.lib.d2i_X509(None, ctypes.byref(at), len(der))
        if not found:
            return "refused " + self.why()
        # 0x80 is EXFLAG_INVALID: the certificate loads, but no chain may end in it because of an extension.
        invalid = self.lib.X509_get_extension_flags(found) & 0x80
        self.lib.X509_free(found)
        self.lib.ERR_clear_error()
        return "ok" + " invalid" * bool(invalid)

    def bundle(self, path):
        store = self.lib.X509_STORE_new()
        try:
            if self.lib.X509_STORE_load_file(store, path.encode()) != 1:
                return "refused " + self.why()
            objects = self.lib.X509_STORE_get0_objects(store)
            every = (self.lib.OPENSSL_sk_value(objects, n) for n in range(self.lib.OPENSSL_sk_num(objects)))
            return f"ok {sum(1 for one in every if self.lib.X509_OBJECT_get0_X509(one))}"
        finally:
            self.lib.X509_STORE_free(store)
            self.lib.ERR_clear_error()


class Datum(ctypes.Structure):
    _fields_ = [("data", POINTER), ("size", ctypes.c_uint)]


class GnuTLS:
    def __init__(self):
        self.lib = lib = ctypes.CDLL("libgnutls.so.30")
        lib.gnutls_strerror.restype = ctypes.c_char_p
        lib.gnutls_check_version.restype = ctypes.c_char_p
        lib.gnutls_check_version.argtypes = [ctypes.c_char_p]
        lib.gnutls_x509_crt_deinit.argtypes = [POINTER]
        lib.gnutls_x509_crt_import.argtypes = [POINTER, POINTER, ctypes.c_int]
        lib.gnutls_x509_trust_list_init.argtypes = [POINTER, ctypes.c_uint]
        lib.gnutls_x509_trust_list_add_trust_file.argtypes = [
            POINTER, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_uint]
        lib.gnutls_x509_trust_list_deinit.argtypes = [POINTER, ctypes.c_uint]

    def version(self):
        return "GnuTLS " + self.lib.gnutls_check_version(None).decode()

    def why(self, code):
        return "refused " + self.lib.gnutls_strerror(code).decode()

    def certificate(self, der):
        found = POINTER()
        self.lib.gnutls_x509_crt_init(ctypes.byref(found))
        buffer = ctypes.create_string_buffer(der, len(der) or 1)
        datum = Datum(ctypes.addressof(buffer), len(der))
        code = self.lib.gnutls_x509_crt_import(found, ctypes.byref(datum), 0)
        self.lib.gnutls_x509_crt_deinit(found)
        return "ok" if code >= 0 else self.why(code)

    def bundle(self, path):
        found = POINTER()
        self.lib.gnutls_x509_trust_list_init(ctypes.byref(found), 0)
        code = self.lib.gnutls_x509_trust_list_add_trust_file(found, path.encode(), None, 1, 0, 0)
        self.lib.gnutls_x509_trust_list_deinit(found, 1)
        return f"ok {code}" if code >= 0 else self.why(code)


class Python:
    def version(self):
        return f"Python {sys.version.split()[0]} with {ssl.OPENSSL_VERSION}"

    def bundle(self, path):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            return f"refused {error.reason}"
        return f"ok {context.cert_store_stats()['x509']}"


def frames(stream):
    while head := stream.read(4):
        (length,) = struct.unpack(">I", head)
        frame = stream.read(length)
        if len(head) != 4 or len(frame) != length:
            sys.exit("a frame is cut off")
        yield frame


def main():
    reader, what = sys.argv[1:]
    reader = {"openssl": OpenSSL, "gnutls": GnuTLS, "python": Python}[reader]()
    if what == "version":
        print(reader.version())
        return
    # The loaders read files only.
    place = os.memfd_create("bundle")
    for frame in frames(sys.stdin.buffer):
        if what == "certificates":
            print(reader.certificate(frame))
        else:
            os.truncate(place, 0)
            os.pwrite(place, frame, 0)
            print(reader.bundle(f"/proc/self/fd/{place}"))


main()
