"""NBD connections of libnbd, for a program that speaks to this one through pipes.

Requests come on the standard input, answers leave on the standard output as they are there, in any
order. A request has 36 bytes (little-endian): number, connection, operation (a letter), flags, 2
bytes of nothing, bytes that follow it, 4 bytes of nothing, offset, length. An answer has 12: number,
errno (0: done), bytes that follow it. It ends with its standard input.

  o  open: the URI follows                 c  close, when all is answered
  r  read: the data follows the answer     w  write: the data follows
  t  trim   z  write zeroes   f  flush     s  block status: length and flags of extents follow
"""
import errno
import os
import select
import struct
import sys

import nbd

REQUEST = struct.Struct('<IIcBxxIxxxxQQ')
ANSWER = struct.Struct('<III')

connections = {}
pending = bytearray()


def answer(number, code, data=b''):
    rest = memoryview(ANSWER.pack(number, code, len(data)) + data)
    while rest:
        rest = rest[os.write(1, rest):]


def failure(error):
    return error.errnum or errno.EIO


def connect(uri):
    handle = nbd.NBD()
    handle.add_meta_context('base:allocation')
    handle.connect_uri(uri)
    # The end of a disk that has grown since is the server's matter.
    handle.set_strict_mode(handle.get_strict_mode() & ~nbd.STRICT_BOUNDS)
    return handle


def open_connection(name, uri):
    """The errno of it. A server that goes during the handshake leaves libnbd without one."""
    try:
        connections[name] = connect(uri)
    except nbd.Error as error:
        return error.errnum or errno.ENOTCONN
    return 0


def close_connection(handle):
    try:
        if handle is not None:
            handle.shutdown()
    except nbd.Error:
        # Its server has gone: it is closed.
        pass


def begin(handle, number, operation, flags, offset, length, data):
    """Sends a request; its answer leaves when the server has answered."""

    def done(error):
        answer(number, error.value)
        return 1

    fua = nbd.CMD_FLAG_FUA if flags & 1 else 0
    if operation == b'r':
        into = nbd.Buffer(length)

        def read(error):
            answer(number, error.value, b'' if error.value else bytes(into.to_bytearray()))
            return 1

        handle.aio_pread(into, offset, read)
    elif operation == b'w':
        handle.aio_pwrite(nbd.Buffer.from_bytearray(data), offset, done, fua)
    elif operation == b't':
        handle.aio_trim(length, offset, done, fua)
    elif operation == b'z':
        handle.aio_zero(length, offset, done, fua)
    elif operation == b'f':
        handle.aio_flush(done)
    elif operation == b's':
        extents = []

        def status(error):
            answer(number, error.value, struct.pack('<%dI' % len(extents), *extents))
            return 1

        def note(context, start, entries, error):
            extents.extend(entries)

        handle.aio_block_status(length, offset, note, status)


def serve(number, name, operation, flags, offset, length, data):
    try:
        if operation == b'o':
            answer(number, open_connection(name, data.decode()))
        elif operation == b'c':
            close_connection(connections.pop(name, None))
            answer(number, 0)
        elif name not in connections:
            answer(number, errno.ENOTCONN)
        else:
            ask(connections[name], number, operation, flags, offset, length, data)
    except nbd.Error as error:
        answer(number, failure(error))


def ask(handle, number, *request):
    try:
        begin(handle, number, *request)
    except nbd.Error as error:
        # Of a connection whose server has gone libnbd says that its state is invalid.
        gone = handle.aio_is_dead() or handle.aio_is_closed()
        answer(number, errno.ENOTCONN if gone else failure(error))


def take_requests():
    """Serves what is there whole."""
    at = 0
    while len(pending) - at >= REQUEST.size:
        number, name, operation, flags, follows, offset, length = REQUEST.unpack_from(pending, at)
        if len(pending) - at < REQUEST.size + follows:
            break
        data = pending[at + REQUEST.size:at + REQUEST.size + follows]
        at += REQUEST.size + follows
        serve(number, name, operation, flags, offset, length, data)
    del pending[:at]


def notify(handle, events):
    """What libnbd says of a connection that has gone, its requests have been told."""
    try:
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            handle.aio_notify_read()
        elif events & select.POLLOUT:
            handle.aio_notify_write()
    except nbd.Error:
        pass


def main():
    while True:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        by_descriptor = {}
        for handle in connections.values():
            direction = handle.aio_get_direction()
            if handle.aio_is_dead() or handle.aio_is_closed() or direction == 0:
                continue
            events = 0
            if direction & nbd.AIO_DIRECTION_READ:
                events |= select.POLLIN
            if direction & nbd.AIO_DIRECTION_WRITE:
                events |= select.POLLOUT
            poll.register(handle.aio_get_fd(), events)
            by_descriptor[handle.aio_get_fd()] = handle
        for descriptor, events in poll.poll():
            if descriptor in by_descriptor:
                notify(by_descriptor[descriptor], events)
                continue
            piece = os.read(0, 1 << 20)
            if not piece:
                sys.exit(0)
            pending.extend(piece)
            take_requests()


main()
