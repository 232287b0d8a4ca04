"""http_load.py SOCKET COUNT: asks a server on a Unix socket for COUNT keys in each of four threads, and digests the answers."""

import hashlib
import http.client
import socket
import sys
import threading


class Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(sys.argv[1])


def ask(thread: int) -> None:
    digest = hashlib.sha256()
    connection = Connection("localhost")
    for i in range(int(sys.argv[2])):
        if i % 500 == 499:
            connection.close()
        connection.request("GET", f"/?key=key{(i * 104729 + thread * 31) % 120001}")
        digest.update(connection.getresponse().read())
    digests[thread] = digest.hexdigest()


digests = [""] * 4
threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(digests))
