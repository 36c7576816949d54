#!/usr/bin/env python3
"""Reads a Keiki store in place, from docs/FORMAT.md alone. It never writes.

  keiki_reader.py STORE list
  keiki_reader.py STORE cat NAME [OFFSET LENGTH]     NAME: golden, or golden@v1
  keiki_reader.py STORE sha256 NAME...

Exit code: 0 done, 1 wrong use or no such name, 2 the store is damaged, 3 it uses what this does not
know. Sections in comments are those of docs/FORMAT.md. Python 3.8, standard library only.
"""
import hashlib
import os
import struct
import sys
import zlib

BLOCK = 4096
SEGMENT_BLOCKS = 1024
PAIR_BLOCKS = 2 * SEGMENT_BLOCKS
FIELDS = 256
HEIGHT_MAX = 5
TOO_LARGE = 1 << 53
FBN_END = 1 << 40
GROUP_BLOCKS_MAX = 1024


class Damage(Exception):
    """The store says something that cannot be."""


class Unsupported(Exception):
    """The store is sound, but of a kind that this reader does not know."""


class Wrong(Exception):
    """The person asked for something that is not there."""


def check(condition, message):
    if not condition:
        raise Damage(message)


def u64(data, offset):
    value = struct.unpack_from("<Q", data, offset)[0]
    check(value < TOO_LARGE, "a number of 2^53 or more")
    return value


def u32(data, offset):
    return struct.unpack_from("<I", data, offset)[0]


def u16(data, offset):
    return struct.unpack_from("<H", data, offset)[0]


# ---------------------------------------------------------------------------------------------
# Section 5: pointers


class Pointer:
    __slots__ = ("vbn", "crc")

    def __init__(self, vbn, crc):
        self.vbn = vbn
        self.crc = crc


HOLE = Pointer(0, 0)
ZERO = Pointer(1, 0)


def decode_pointer(data, offset, store_blocks):
    vbn = int.from_bytes(data[offset:offset + 7], "little")
    flags = data[offset + 7]
    crc, spare = struct.unpack_from("<II", data, offset + 8)
    check(flags & ~3 == 0, "a pointer with unknown flags %#x" % flags)
    check(vbn < store_blocks, "a pointer to VBN %d of a store of %d blocks" % (vbn, store_blocks))
    check(spare == 0, "a pointer with its spare word set")
    check(vbn > 1 or crc == 0, "a pointer with a checksum but no block")
    return Pointer(vbn, crc)


# ---------------------------------------------------------------------------------------------
# Section 4: fsinfo


class Fsinfo:
    def __init__(self, block):
        check(len(block) == BLOCK and block[0:8] == b"KEIKIFS1", "no fsinfo")
        check(u32(block, 8) == zlib.crc32(block[12:]), "an fsinfo with a wrong checksum")
        self.refuse_unknown(block)
        self.uuid = block[16:32]
        self.cp_number = u64(block, 72)
        self.epoch = u64(block, 80)
        self.store_blocks = u64(block, 120)
        self.log_start = u64(block, 128)
        self.log_blocks = u64(block, 136)
        self.replay_from = u64(block, 144)
        self.replay_position = u64(block, 152)
        check(self.store_blocks % PAIR_BLOCKS == 0, "a store of half a segment pair")
        check(2 <= self.log_start, "a log over fsinfo")
        check(self.log_start + self.log_blocks <= self.store_blocks - 2, "a log beyond the store")
        check(self.replay_position <= self.log_blocks, "a replay position outside the log")
        self.roots = {}
        for index, name in enumerate(("tree", "vdisk", "reference", "usage", "map")):
            at = 256 + 32 * index
            pointer = decode_pointer(block, at, self.store_blocks)
            height = u32(block, at + 16)
            check(height <= HEIGHT_MAX, "a %s file of height %d" % (name, height))
            check(height > 0 or pointer.vbn <= 1, "a %s file without height" % name)
            self.roots[name] = (pointer, height)

    @staticmethod
    def refuse_unknown(block):
        def known(condition, what):
            if not condition:
                raise Unsupported(what)

        known(u32(block, 12) == 1, "format version %d" % u32(block, 12))
        known(u64(block, 48) & ~2 == 0, "incompatible features")
        known(u32(block, 56) == BLOCK, "blocks of %d bytes" % u32(block, 56))
        known(u32(block, 60) == SEGMENT_BLOCKS, "segments of %d blocks" % u32(block, 60))
        known(u32(block, 64) == 1, "checksum kind %d" % u32(block, 64))
        known(u32(block, 68) == 1, "a store that is not in place")
        known(block[96:112] == bytes(16), "a log on a device of its own")


def choose_fsinfo(device):
    """The valid slot with the highest CP number."""
    size_blocks = device.size // BLOCK
    ends = [size_blocks // PAIR_BLOCKS * PAIR_BLOCKS]
    found = []
    unknown = []

    def look(vbn):
        if vbn < 0:
            return
        try:
            info = Fsinfo(device.read(vbn, 1))
        except Unsupported as reason:
            unknown.append(reason)
        except Damage:
            pass
        else:
            found.append(info)
            if info.store_blocks not in ends:
                ends.append(info.store_blocks)

    look(0)
    look(1)
    for end in ends:
        look(end - 2)
        look(end - 1)
    if not found:
        if unknown:
            raise unknown[0]
        raise Damage("no valid fsinfo in any of its four places: not a store, or a lost one")
    best = max(found, key=lambda info: info.cp_number)
    check(best.store_blocks <= size_blocks, "the device is shorter than its store of %d blocks (%d)"
          % (best.store_blocks, size_blocks))
    return best


class Device:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = self.file.seek(0, os.SEEK_END)

    def read(self, vbn, blocks):
        data = os.pread(self.file.fileno(), blocks * BLOCK, vbn * BLOCK)
        check(len(data) == blocks * BLOCK, "VBN %d lies beyond the end of the file" % vbn)
        return data


# ---------------------------------------------------------------------------------------------
# Sections 7 and 8: records


class Tree:
    def __init__(self, data, store_blocks, only_attributes=False):
        self.id = u64(data, 0)
        self.take_attributes(data)
        # What replayed entries say of this tree: section 13.
        self.blocks = {}
        self.ranges = []
        if only_attributes:
            self.root, self.root_height, self.gone_below = HOLE, self.height, 0
            return
        self.root = decode_pointer(data, 16, store_blocks)
        self.root_height = self.height
        self.gone_below = u64(data, 80)

    def take_attributes(self, data):
        self.state = data[8]
        self.height = data[9]
        self.size = u64(data, 32)
        self.backing = u64(data, 40)
        self.limit = u64(data, 48)
        check(1 <= self.state <= 3, "tree %d has state %d" % (self.id, self.state))
        check(1 <= self.height <= HEIGHT_MAX, "tree %d has height %d" % (self.id, self.height))


class Vdisk:
    def __init__(self, data):
        self.id = u64(data, 0)
        self.kind = data[8]
        self.state = data[9]
        length = u16(data, 10)
        check(self.kind in (1, 2) and self.state in (1, 2), "vdisk record %d is no kind" % self.id)
        check(1 <= length <= 255, "vdisk record %d has a name of %d bytes" % (self.id, length))
        self.head = u64(data, 16)
        self.of = u64(data, 24)
        try:
            self.name = data[64:64 + length].decode("utf-8")
        except UnicodeDecodeError:
            raise Damage("vdisk record %d has a name that is not UTF-8" % self.id) from None


# ---------------------------------------------------------------------------------------------
# Sections 11 and 12: log


class Group:
    """A valid group, or Damage."""

    def __init__(self, store, position, mend=False):
        info = store.info
        check(position < info.log_blocks, "a group beyond the ring")
        left = info.log_blocks - position
        header = sound_header(store, info.log_start + position, left, mend)
        header_blocks = -(-len(header) // BLOCK)
        payload_blocks = u32(header, 60)
        blocks = header_blocks + payload_blocks
        check(blocks <= GROUP_BLOCKS_MAX, "a group of %d blocks" % blocks)
        check(blocks <= left, "a group beyond the ring")
        self.end = position + blocks
        self.sequence = u64(header, 24)
        self.epoch = u64(header, 32)
        self.cp_number = u64(header, 40)
        self.synced_through = u64(header, 48)
        check(self.synced_through <= self.sequence, "a group that knows the future")
        payload = store.device.read(info.log_start + position + header_blocks, payload_blocks)
        self.entries = decode_entries(store, header[96:], u32(header, 64), payload, mend)


def sound_header(store, vbn, left, mend):
    """The header that begins here, without padding; with one wrong bit put right, if asked to."""
    first = store.device.read(vbn, 1)
    candidates = [first]
    if mend:
        # A wrong bit in the magic, or in the length, which says what the checksum is of.
        candidates += [with_bit(first, bit) for bit in (*range(32), *range(56 * 8, 56 * 8 + 32))]
    for candidate in candidates:
        length = u32(candidate, 56)
        if candidate[0:4] != b"KLOG" or not 96 <= length <= min(left, GROUP_BLOCKS_MAX) * BLOCK:
            continue
        rest = store.device.read(vbn + 1, (length - 1) // BLOCK)
        header = (candidate + rest)[:length]
        crc, actual = u32(header, 4), zlib.crc32(header[8:])
        if mend and candidate is first and actual != crc:
            if bin(actual ^ crc).count("1") == 1:
                header = header[0:4] + struct.pack("<I", actual) + header[8:]
            else:
                header = header[0:8] + mended(header[8:], crc)
        if u32(header, 4) == zlib.crc32(header[8:]) and header[8:24] == store.info.uuid:
            return header
    raise Damage("no group")


def with_bit(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def mended(data, crc):
    """The data with the one bit inverted that makes its CRC-32 right; as it is if none does."""
    change = zlib.crc32(data) ^ crc
    # What an inverted bit does to a CRC depends on its distance from the end alone.
    effect = 0xEDB88320
    for bit in range(len(data) * 8 - 1, -1, -1):
        if effect == change:
            return with_bit(data, bit)
        effect = effect >> 1 ^ (0xEDB88320 if effect & 1 else 0)
    return data


def decode_entries(store, data, count, payload, mend):
    entries = []
    at = 0
    for _ in range(count):
        check(at + 8 <= len(data), "an entry beyond its header")
        kind, length = u16(data, at), u16(data, at + 2)
        check(8 <= length and length % 8 == 0 and at + length <= len(data), "a wrong entry length")
        entries.append(decode_entry(store, kind, data[at:at + length], payload, mend))
        at += length
    check(at == len(data), "bytes behind the last entry")
    return entries


def decode_entry(store, kind, data, payload, mend):
    if kind == 4:
        check(len(data) == 264, "a tree entry of %d bytes" % len(data))
        check(u64(data, 8) > 0, "a tree entry without id")
        return ("tree", data[8:])
    if kind == 5:
        check(len(data) == 520, "a vdisk entry of %d bytes" % len(data))
        check(u64(data, 8) > 0, "a vdisk entry without id")
        return ("vdisk", Vdisk(data[8:]))
    check(kind in (1, 2, 3) and len(data) >= 32, "an entry of kind %d" % kind)
    own = u32(data, 4)
    tree, fbn = u64(data, 8), u64(data, 16)
    if kind == 1:
        index = u32(data, 24)
        check(len(data) == 32 and fbn < FBN_END, "a wrong data entry")
        block = payload[index * BLOCK:(index + 1) * BLOCK]
        check(len(block) == BLOCK, "a data entry without payload")
        if mend and zlib.crc32(block) != own:
            block = mended(block, own)
        check(zlib.crc32(block) == own, "a payload block with a wrong checksum")
        return ("data", tree, fbn, block)
    third = u64(data, 24)
    if kind == 2:
        check(own <= 1024 and len(data) == 32 + (own * 4 + 7) // 8 * 8, "a wrong pointers entry")
        check(fbn + own <= FBN_END, "pointers beyond the largest tree")
        check(third + own <= store.info.store_blocks, "pointers beyond the store")
        crcs = struct.unpack_from("<%dI" % own, data, 32)
        return ("pointers", tree, fbn, [Pointer(third + i, crc) for i, crc in enumerate(crcs)])
    check(own in (1, 2) and len(data) == 32, "a wrong range entry")
    check(fbn + third <= FBN_END, "a range beyond the largest tree")
    return ("range", tree, fbn, fbn + third, ZERO if own == 1 else HOLE)


def read_log(store):
    """All valid groups from replayFrom on, in order; Damage if a durable one is lost."""
    info = store.info
    groups = []
    sequence, position, epoch = info.replay_from, info.replay_position, info.epoch
    while True:
        group = find_group(store, sequence, position, epoch)
        if group is None:
            break
        groups.append(group)
        sequence, position, epoch = sequence + 1, group.end, group.epoch
    for position in range(info.log_blocks):
        try:
            later = Group(store, position)
        except Damage:
            continue
        check(later.sequence <= sequence or later.synced_through < sequence,
              "log group %d is damaged: group %d says that it was durable"
              % (sequence, later.sequence))
    return groups


def find_group(store, sequence, position, epoch):
    for place in (position, 0):
        try:
            group = Group(store, place, mend=True)
        except Damage:
            continue
        if group.sequence == sequence and group.epoch >= epoch:
            return group
    return None


# ---------------------------------------------------------------------------------------------
# The store


class Store:
    def __init__(self, path):
        self.device = Device(path)
        self.info = choose_fsinfo(self.device)
        self.cache = {}
        self.trees = {}
        self.vdisks = {}
        for data in self.records("tree", 256):
            tree = Tree(data, self.info.store_blocks)
            check(tree.id not in self.trees, "two records of tree %d" % tree.id)
            self.trees[tree.id] = tree
        for data in self.records("vdisk", 512):
            vdisk = Vdisk(data)
            check(vdisk.id not in self.vdisks, "two vdisk records %d" % vdisk.id)
            self.vdisks[vdisk.id] = vdisk
        self.replay(read_log(self))

    # Sections 3 and 6: blocks and metafiles

    def load_data(self, pointer):
        block = self.device.read(pointer.vbn, 1)
        check(zlib.crc32(block) == pointer.crc, "VBN %d does not match its checksum" % pointer.vbn)
        return block

    def load_metadata(self, pointer):
        if pointer.vbn in self.cache:
            return self.cache[pointer.vbn]
        for vbn in (pointer.vbn, pointer.vbn ^ SEGMENT_BLOCKS):
            if vbn >= self.info.store_blocks:
                continue
            block = self.device.read(vbn, 1)
            if zlib.crc32(block) == pointer.crc:
                if len(self.cache) >= 4096:
                    self.cache.clear()
                self.cache[pointer.vbn] = block
                return block
        raise Damage("neither copy of metadata block %d matches its checksum" % pointer.vbn)

    def leaves(self, pointer, level):
        """Every level-0 block of a metafile that is there."""
        if pointer.vbn <= 1:
            return
        block = self.load_metadata(pointer)
        if level == 0:
            yield block
            return
        for field in range(FIELDS):
            child = decode_pointer(block, field * 16, self.info.store_blocks)
            yield from self.leaves(child, level - 1)

    def records(self, name, size):
        pointer, height = self.info.roots[name]
        for block in self.leaves(pointer, height):
            for at in range(0, BLOCK, size):
                if block[at:at + 8] != bytes(8):
                    yield block[at:at + size]

    # Section 13: replay

    def replay(self, groups):
        order = 0
        for group in groups:
            if group.cp_number <= self.info.cp_number:
                continue
            for entry in group.entries:
                order += 1
                self.apply(entry, order)

    def apply(self, entry, order):
        kind = entry[0]
        if kind == "tree":
            tree_id = u64(entry[1], 0)
            if tree_id in self.trees:
                self.trees[tree_id].take_attributes(entry[1])
            else:
                self.trees[tree_id] = Tree(entry[1], self.info.store_blocks, only_attributes=True)
            return
        if kind == "vdisk":
            vdisk = entry[1]
            if vdisk.state == 2:
                self.vdisks.pop(vdisk.id, None)
            else:
                self.vdisks[vdisk.id] = vdisk
            return
        tree = self.tree(entry[1])
        if kind == "data":
            tree.blocks[entry[2]] = (order, entry[3])
        elif kind == "pointers":
            for index, pointer in enumerate(entry[3]):
                tree.blocks[entry[2] + index] = (order, pointer)
        else:
            tree.ranges.append((order, entry[2], entry[3], entry[4]))

    def tree(self, tree_id):
        check(tree_id in self.trees, "tree %d is named, but there is none" % tree_id)
        return self.trees[tree_id]

    # Section 9: reading

    def lookup(self, tree, fbn):
        """What the tree itself has at this FBN: HOLE, ZERO, another pointer, or bytes."""
        order, found = tree.blocks.get(fbn, (0, None))
        for range_order, start, end, to in reversed(tree.ranges):
            if range_order < order:
                break
            if start <= fbn < end:
                return to
        if found is not None:
            return found
        return self.walk(tree, fbn)

    def walk(self, tree, fbn):
        level = tree.root_height
        if fbn >= FIELDS ** level or fbn < tree.gone_below:
            return HOLE
        pointer = tree.root
        while level > 0 and pointer.vbn > 1:
            block = self.load_metadata(pointer)
            field = fbn // FIELDS ** (level - 1) % FIELDS
            pointer = decode_pointer(block, field * 16, self.info.store_blocks)
            level -= 1
        return pointer

    def read(self, tree, offset, length):
        """Bytes of the tree; the range lies in one block."""
        fbn, start = divmod(offset, BLOCK)
        for _ in range(len(self.trees)):
            found = self.lookup(tree, fbn)
            if isinstance(found, bytes):
                return found[start:start + length]
            if found.vbn == 1:
                return bytes(length)
            if found.vbn != 0:
                return self.load_data(found)[start:start + length]
            below = min(max(tree.limit - offset, 0), length)
            if tree.backing == 0 or below == 0:
                return bytes(length)
            if below < length:
                return self.read(self.tree(tree.backing), offset, below) + bytes(length - below)
            tree = self.tree(tree.backing)
        raise Damage("the backing trees of tree %d form a loop" % tree.id)

    def read_range(self, name, tree, offset, length):
        end = offset + length
        while offset < end:
            count = min(BLOCK - offset % BLOCK, end - offset)
            try:
                yield self.read(tree, offset, count)
            except Damage as reason:
                raise Damage("%s: FBN %d: %s" % (name, offset // BLOCK, reason)) from None
            offset += count

    # Names

    def full_name(self, vdisk):
        if vdisk.kind == 1:
            return vdisk.name
        check(vdisk.of in self.vdisks, "snapshot %s is of no vdisk" % vdisk.name)
        return "%s@%s" % (self.vdisks[vdisk.of].name, vdisk.name)

    def find(self, name):
        for vdisk in self.vdisks.values():
            if self.full_name(vdisk) == name:
                return self.tree(vdisk.head)
        raise Wrong("no vdisk or snapshot is called %s" % name)


def print_list(store):
    rows = []
    for vdisk in store.vdisks.values():
        tree = store.tree(vdisk.head)
        kind = "vdisk" if vdisk.kind == 1 else "snapshot"
        rows.append((store.full_name(vdisk), kind, tree.size))
    for name, kind, size in sorted(rows):
        print("%s\t%s\t%d" % (name, kind, size))


def print_digest(store, name):
    tree = store.find(name)
    digest = hashlib.sha256()
    for piece in store.read_range(name, tree, 0, tree.size):
        digest.update(piece)
    print(digest.hexdigest())


def run(arguments):
    if len(arguments) < 2:
        raise Wrong(__doc__.strip())
    path, command, rest = arguments[0], arguments[1], arguments[2:]
    store = Store(path)
    if command == "list" and not rest:
        print_list(store)
        return
    if command == "sha256" and rest:
        for name in rest:
            print_digest(store, name)
        return
    if command != "cat" or len(rest) not in (1, 3):
        raise Wrong(__doc__.strip())
    tree = store.find(rest[0])
    offset, length = (int(rest[1]), int(rest[2])) if len(rest) == 3 else (0, tree.size)
    if offset < 0 or length < 0 or offset + length > tree.size:
        raise Wrong("%s has %d bytes" % (rest[0], tree.size))
    for piece in store.read_range(rest[0], tree, offset, length):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def main():
    try:
        run(sys.argv[1:])
    except Damage as reason:
        fail(2, "damaged: %s" % reason)
    except Unsupported as reason:
        fail(3, "not supported: %s" % reason)
    except (Wrong, OSError, ValueError) as reason:
        fail(1, str(reason))


def fail(code, message):
    sys.stdout.flush()
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
