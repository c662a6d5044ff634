"""A long, bad line between two network namespaces: whole Ethernet frames are delayed, each by a time of its own (so that they overtake
each other), lost, and slowed down. The kernel of a test machine may lack netem; two TAP devices and this program need nothing of it.

usage: tap_line.py SITE_DEVICE OWN_DEVICE PID --delay MS --jitter MS --loss PERCENT --rate BYTES_PER_SECOND
       says `ready` once both devices are there; PID is a process in the other namespace
"""

import argparse
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65536
MOST_WAITING = 2000


def open_tap(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
    fcntl.ioctl(device, TUNSETIFF, request)
    return device


def open_tap_beside(pid, name):
    """A TAP device stays in the namespace in which it was made, whoever holds its file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    number = str(theirs.fileno())
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, __file__]
    subprocess.run(command + ["--send", name, number], pass_fds=[theirs.fileno()], check=True, timeout=20)
    _, files, _, _ = socket.recv_fds(ours, 1, 1)
    return files[0]


def send(name, number):
    with socket.socket(fileno=int(number)) as channel:
        socket.send_fds(channel, [b"x"], [open_tap(name)])


def carry(ends, line):
    waiting, order = [], 0
    free = {end: 0.0 for end in ends}
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, end, frame = heapq.heappop(waiting)
            try:
                os.write(end, frame)
            except OSError:
                pass  # The device is down or full: lost, as on any line.
        pause = waiting[0][0] - now if waiting else None
        readable, _, _ = select.select(ends, [], [], pause)
        for end in readable:
            frame = os.read(end, FRAME)
            other = ends[1] if end == ends[0] else ends[0]
            if random.uniform(0, 100) < line.loss or len(waiting) >= MOST_WAITING:
                continue
            now = time.monotonic()
            free[other] = max(now, free[other]) + len(frame) / line.rate
            due = free[other] + (line.delay + random.uniform(0, line.jitter)) / 1000
            order += 1
            heapq.heappush(waiting, (due, order, other, frame))


def main():
    if sys.argv[1] == "--send":
        send(sys.argv[2], sys.argv[3])
        return
    words = argparse.ArgumentParser()
    words.add_argument("site")
    words.add_argument("own")
    words.add_argument("pid", type=int)
    for name in ["delay", "jitter", "loss", "rate"]:
        words.add_argument(f"--{name}", type=float, required=True)
    line = words.parse_args()
    ends = [open_tap(line.site), open_tap_beside(line.pid, line.own)]
    print("ready", flush=True)
    carry(ends, line)


main()
