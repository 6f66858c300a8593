#!/usr/bin/env python3
"""A small client of the control protocol (docs/protocol.md), for tests that need more than the pvol command shows.

    pvctl.py METHOD [JSON-PARAMS] [--key TEXT]... [--after SECONDS]

Prints the result as JSON; an error goes to standard error and its class is the exit status. Each --key is passed as
a pipe. --after ends the connection that long after the request was sent, as an interrupted program would.
It never starts a keeper.
"""
import array
import json
import os
import socket
import sys

PROTOCOL = 1


def runtime_dir():
    return os.environ["PVOL_RUNTIME"]


class Channel:
    """One connection; requests are made one after the other."""

    def __init__(self, path=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        here = os.open(path or runtime_dir(), os.O_RDONLY)
        self.socket.connect(f"/proc/self/fd/{here}/control")
        os.close(here)
        self.buffer = b""
        self.last = 0
        self.fds = []
        self.send({"hello": {"protocol": PROTOCOL, "version": "test"}})
        self.hello = self.receive()["hello"]

    def send(self, message, fds=()):
        line = (json.dumps(message) + "\n").encode()
        if fds:
            self.socket.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.socket.sendall(line)

    def receive(self):
        while b"\n" not in self.buffer:
            data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(64))
            for _, kind, payload in ancillary:
                if kind == socket.SCM_RIGHTS:
                    got = array.array("i")
                    got.frombytes(payload[:len(payload) - len(payload) % 4])
                    self.fds += list(got)
            if not data:
                raise ConnectionError("the keeper closed the connection")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def begin(self, method, params=None, keys=(), fds=()):
        self.last += 1
        fds = list(fds)
        pipes = []
        for key in keys:
            reader, writer = os.pipe()
            os.write(writer, key.encode())
            os.close(writer)
            pipes.append(reader)
        request = {"id": self.last, "method": method, "params": params or {}}
        if pipes or fds:
            request["fds"] = len(pipes) + len(fds)
        self.send(request, pipes + fds)
        for reader in pipes:
            os.close(reader)
        return self.last

    def call(self, method, params=None, keys=(), fds=()):
        """The answer: a dictionary with "result" or "error"."""
        number = self.begin(method, params, keys, fds)
        while True:
            message = self.receive()
            if message.get("id") == number and "progress" not in message:
                return message


def main():
    arguments = sys.argv[1:]
    keys, after, words = [], None, []
    while arguments:
        word = arguments.pop(0)
        if word == "--key":
            keys.append(arguments.pop(0))
        elif word == "--after":
            after = float(arguments.pop(0))
        else:
            words.append(word)
    method, params = words[0], json.loads(words[1]) if len(words) > 1 else {}
    channel = Channel()
    if after is not None:
        import time
        channel.begin(method, params, keys)
        time.sleep(after)
        return 0
    answer = channel.call(method, params, keys)
    if "error" in answer:
        print(json.dumps(answer["error"]), file=sys.stderr)
        return answer["error"].get("exit", 1)
    json.dump(answer["result"], sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
