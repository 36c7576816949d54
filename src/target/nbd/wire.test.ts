/** The codecs against bytes written down from the protocol document. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  extendedRequest,
  infoData,
  metaData,
  request,
  statusPayload,
} from '../../../test/support/nbd-script.js';
import { getI32, getU16, getU32, getU64, putU16, putU32, putU64 } from './big-endian.js';
import * as nbd from './protocol.js';
import { EXTENDED_CHUNKS, STRUCTURED_CHUNKS } from './wire-chunks.js';
import * as handshake from './wire-handshake.js';
import { decodeString, encodeString } from './wire-string.js';
import * as transmission from './wire-transmission.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** A cookie and an offset as the halves that are echoed. */
const ID = { cookieHigh: 0x01020304, cookieLow: -0x0a0b0c0d | 0, offsetHigh: -2, offsetLow: 7 };
const COOKIE_HEX = '01020304f5f4f3f3';
const OFFSET_HEX = 'fffffffe00000007';

describe('big-endian numbers', () => {
  it('come back as they were put, at every byte pattern of interest', () => {
    const bytes = new Uint8Array(10);
    for (const value of [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff]) {
      putU16(bytes, 1, value);
      assert.equal(getU16(bytes, 1), value);
    }
    for (const value of [0, 1, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, 0x01020304]) {
      putU32(bytes, 1, value);
      assert.equal(getU32(bytes, 1), value);
      assert.equal(getI32(bytes, 1), value | 0);
    }
    for (const value of [0, 1, 0xffffffff, 2 ** 32, 2 ** 53 - 1, 2 ** 50 + 12345]) {
      putU64(bytes, 1, value);
      assert.equal(getU64(bytes, 1), value);
      assert.equal(Buffer.from(bytes).readBigUInt64BE(1), BigInt(value));
    }
  });

  it('stay beyond every end when they are too large to be exact', () => {
    const bytes = Buffer.alloc(8);
    for (const value of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      bytes.writeBigUInt64BE(value);
      assert.ok(getU64(bytes, 0) >= 2 ** 53);
    }
  });
});

describe('strings', () => {
  it('are UTF-8 without NUL, at most 4096 bytes', () => {
    assert.equal(decodeString(Buffer.from('golden@v1 ä 漢 😀')), 'golden@v1 ä 漢 😀');
    assert.equal(decodeString(Buffer.from('')), '');
    assert.equal(
      decodeString(Buffer.from('\ufeffx')),
      '\ufeffx',
      'a byte order mark is a character',
    );
    assert.equal(decodeString(Buffer.from('a\0b')), undefined);
    assert.equal(decodeString(Buffer.from([0x61, 0xff])), undefined);
    assert.equal(decodeString(Buffer.from([0xc3])), undefined, 'a character that is cut');
    assert.equal(decodeString(Buffer.alloc(4096, 'x'))?.length, 4096);
    assert.equal(decodeString(Buffer.alloc(4097, 'x')), undefined);
  });

  it('are cut at a character when we send them', () => {
    assert.equal(Buffer.from(encodeString('ä')).toString(), 'ä');
    const long = encodeString('漢'.repeat(2000));
    assert.equal(long.length, 4095);
    assert.equal(decodeString(long), '漢'.repeat(1365));
  });
});

describe('the handshake codec', () => {
  it('greets as the document says', () => {
    assert.equal(hex(handshake.encodeGreeting()), '4e42444d41474943' + '49484156454f5054' + '0003');
  });

  it('reads an option header, and nothing that begins otherwise', () => {
    const bytes = Buffer.from('ff49484156454f505400000007fffffffe', 'hex');
    assert.deepEqual(handshake.decodeOptionHeader(bytes, 1), {
      option: 7,
      dataBytes: 0xfffffffe,
    });
    for (let bit = 0; bit < 64; bit++) {
      const bad = Buffer.from(bytes);
      bad[1 + (bit >> 3)] = (bad[1 + (bit >> 3)] ?? 0) ^ (1 << (bit & 7));
      assert.equal(handshake.decodeOptionHeader(bad, 1), undefined);
    }
  });

  it('reads INFO data, whole only', () => {
    const data = infoData('disk', [3, 0, 9]);
    assert.deepEqual(handshake.decodeInfoRequest(data), { name: 'disk', infos: [3, 0, 9] });
    for (let length = 0; length < data.length; length++) {
      assert.equal(handshake.decodeInfoRequest(data.subarray(0, length)), undefined);
    }
    assert.equal(handshake.decodeInfoRequest(Buffer.concat([data, Buffer.alloc(1)])), undefined);
    const liar = Buffer.from(data);
    liar.writeUInt32BE(0xffffffff);
    assert.equal(handshake.decodeInfoRequest(liar), undefined);
  });

  it('reads metadata context queries, whole only, and believes no count', () => {
    const data = metaData('disk', ['base:allocation', '', 'qemu:']);
    assert.deepEqual(handshake.decodeMetaContextRequest(data), {
      name: 'disk',
      queries: ['base:allocation', '', 'qemu:'],
    });
    for (let length = 0; length < data.length; length++) {
      assert.equal(handshake.decodeMetaContextRequest(data.subarray(0, length)), undefined);
    }
    const longer = Buffer.concat([data, Buffer.alloc(1)]);
    assert.equal(handshake.decodeMetaContextRequest(longer), undefined);
    const liar = Buffer.from(data);
    liar.writeUInt32BE(0xffffffff, 8);
    assert.equal(handshake.decodeMetaContextRequest(liar), undefined);
  });

  it('makes option replies', () => {
    const magic = '0003e889045565a9';
    assert.equal(
      hex(handshake.encodeOptionReply(3, nbd.NBD_REP_ACK)),
      `${magic}000000030000000100000000`,
    );
    assert.equal(
      hex(handshake.encodeOptionError(9, nbd.NBD_REP_ERR_UNSUP, 'no')),
      `${magic}0000000980000001000000026e6f`,
    );
    assert.equal(
      hex(handshake.encodeServerReply(3, 'ab')),
      `${magic}000000030000000200000006000000026162`,
    );
    assert.equal(
      hex(handshake.encodeInfoExport(7, 2 ** 40 + 512, 0x0d6d)),
      `${magic}00000007000000030000000c000000000100000002000d6d`,
    );
    assert.equal(
      hex(handshake.encodeInfoName(7, 'ab')),
      `${magic}00000007000000030000000400016162`,
    );
    assert.equal(
      hex(handshake.encodeInfoBlockSize(7)),
      `${magic}00000007000000030000000e0003000000010000100002000000`,
    );
    assert.equal(
      hex(handshake.encodeMetaContext(10, 1, 'b:a')),
      `${magic}0000000a000000040000000700000001623a61`,
    );
  });

  it('answers EXPORT_NAME with and without the zeroes', () => {
    const head = '0000000000100000' + '0001';
    assert.equal(hex(handshake.encodeExportNameReply(1 << 20, 1, false)), head);
    assert.equal(hex(handshake.encodeExportNameReply(1 << 20, 1, true)), head + '00'.repeat(124));
  });
});

describe('the transmission codec', () => {
  const fields = { type: 1, flags: 0x8001, cookie: 0x01020304f5f4f3f3n };
  const decoded = transmission.emptyRequest();

  it('reads a request', () => {
    const bytes = request({ ...fields, offset: 2 ** 52 + 7, length: 0xffffffff });
    transmission.decodeRequest(Buffer.concat([Buffer.alloc(3), bytes]), 3, decoded);
    assert.deepEqual(decoded, {
      magic: nbd.NBD_REQUEST_MAGIC,
      flags: 0x8001,
      type: 1,
      ...ID,
      offsetHigh: 0x100000,
      offset: 2 ** 52 + 7,
      length: 0xffffffff,
    });
  });

  it('reads an extended request, whose length has 64 bits', () => {
    const bytes = extendedRequest({
      ...fields,
      offset: 2n ** 64n - 2n ** 33n + 7n,
      length: 2 ** 41,
    });
    transmission.decodeExtendedRequest(Buffer.concat([Buffer.alloc(3), bytes]), 3, decoded);
    assert.deepEqual(decoded, {
      magic: nbd.NBD_EXTENDED_REQUEST_MAGIC,
      flags: 0x8001,
      type: 1,
      ...ID,
      offset: 2 ** 64 - 2 ** 33,
      length: 2 ** 41,
    });
    assert.equal(bytes.length, transmission.EXTENDED_REQUEST_BYTES);
  });

  it('reads the payload of a block status', () => {
    const bytes = Buffer.concat([Buffer.alloc(3), statusPayload(2 ** 40 + 1, [3, 0xffffffff])]);
    assert.equal(transmission.statusPayloadBytes(2), bytes.length - 3);
    assert.deepEqual(transmission.decodeStatusPayload(bytes, 3, 16), {
      length: 2 ** 40 + 1,
      contextIds: [3, 0xffffffff],
    });
  });

  it('makes simple replies', () => {
    const into = new Uint8Array(18);
    transmission.putSimpleReply(into, 1, ID, 28);
    assert.equal(hex(into), `00${'67446698'}${'0000001c'}${COOKIE_HEX}00`);
  });
});

describe('the codec of chunks', () => {
  const header = { structured: COOKIE_HEX, extended: COOKIE_HEX + OFFSET_HEX };
  /** A header that was put in front, alone. */
  const put = (length: number, fill: (into: Uint8Array) => void): string => {
    const into = new Uint8Array(length);
    fill(into);
    return hex(into);
  };
  const data = { offset: 2 ** 40, length: 512, isLast: true };
  const hole = { offset: 4096, length: 512, isLast: false };
  const extents = [
    { length: 4096, flags: 0 },
    { length: 0xfffff000, flags: 3 },
  ];

  it('makes structured chunks', () => {
    const chunks = STRUCTURED_CHUNKS;
    const id = header.structured;
    assert.equal(
      put(chunks.headerBytes, (into) => chunks.putNone(into, 0, ID)),
      `668e33ef00010000${id}00000000`,
    );
    assert.equal(
      put(chunks.dataHeaderBytes, (into) => chunks.putData(into, 0, ID, data)),
      `668e33ef00010001${id}00000208${'0000010000000000'}`,
    );
    assert.equal(
      put(chunks.holeBytes, (into) => chunks.putHole(into, 0, ID, hole)),
      `668e33ef00000002${id}0000000c${'0000000000001000'}00000200`,
    );
    assert.equal(
      hex(chunks.encodeError(ID, 5, 'bad')),
      `668e33ef00018001${id}00000009000000050003626164`,
    );
    assert.equal(
      hex(chunks.encodeStatus(ID, { contextId: 1, extents }, true)),
      `668e33ef00010005${id}0000001400000001${'0000100000000000'}${'fffff00000000003'}`,
    );
  });

  it('makes extended chunks, with the offset of the request', () => {
    const chunks = EXTENDED_CHUNKS;
    const id = header.extended;
    assert.equal(
      put(chunks.headerBytes, (into) => chunks.putNone(into, 0, ID)),
      `6e8a278c00010000${id}0000000000000000`,
    );
    assert.equal(
      put(chunks.dataHeaderBytes, (into) => chunks.putData(into, 0, ID, data)),
      `6e8a278c00010001${id}0000000000000208${'0000010000000000'}`,
    );
    assert.equal(
      put(chunks.holeBytes, (into) => chunks.putHole(into, 0, ID, hole)),
      `6e8a278c00000002${id}000000000000000c${'0000000000001000'}00000200`,
    );
    assert.equal(
      hex(chunks.encodeError(ID, 5, 'bad')),
      `6e8a278c00018001${id}0000000000000009000000050003626164`,
    );
    const large = [{ length: 2 ** 42, flags: 0 }, ...extents.slice(1)];
    assert.equal(
      hex(chunks.encodeStatus(ID, { contextId: 1, extents: large }, false)),
      `6e8a278c00000006${id}00000000000000280000000100000002` +
        `${'0000040000000000'}${'0000000000000000'}${'00000000fffff000'}${'0000000000000003'}`,
    );
  });

  it('cuts an error message that is too long', () => {
    const chunk = STRUCTURED_CHUNKS.encodeError(ID, 5, 'x'.repeat(10_000));
    assert.equal(chunk.length, 20 + 6 + 4096);
    assert.equal(getU16(chunk, 24), 4096);
  });
});
