import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip } from '../../test/support/bit-flips.js';
import { certificates, PLAIN_CERTIFICATE, PLAIN_VDISK } from '../../test/support/layout-values.js';
import { viewOf } from './bytes.js';
import {
  CERTIFICATE_BYTES,
  CERTIFICATE_OFFSET,
  type CertificateRecord,
  decodeCertificate,
  encodeCertificate,
  FORMER_NAME_BYTES_MAX,
  toFormerName,
} from './certificate-record.js';
import { decodeVdiskRecord, encodeVdiskRecord, VDISK_RECORD_BYTES } from './vdisk-record.js';

function encoded(record: CertificateRecord): Uint8Array {
  const bytes = new Uint8Array(CERTIFICATE_BYTES);
  encodeCertificate(record, bytes);
  return bytes;
}

test('every certificate comes back', () => {
  fc.assert(
    fc.property(certificates, (record) => {
      assert.deepEqual(decodeCertificate(encoded(record)), record);
    }),
  );
});

test('a record without one is as it was before there were any', () => {
  const bytes = new Uint8Array(VDISK_RECORD_BYTES);
  encodeVdiskRecord(PLAIN_VDISK, bytes);
  assert.ok(bytes.subarray(CERTIFICATE_OFFSET).every((byte) => byte === 0));
  assert.equal(decodeCertificate(bytes.subarray(CERTIFICATE_OFFSET)), 'none');
  assert.equal(CERTIFICATE_OFFSET + CERTIFICATE_BYTES, VDISK_RECORD_BYTES);
});

test('every kind, flag and length of the name: known or refused', () => {
  const isKnown = (at: number, value: number): boolean => {
    const bytes = encoded(PLAIN_CERTIFICATE);
    if (at === 2) viewOf(bytes).setUint16(2, value, true);
    else bytes[at] = value;
    return decodeCertificate(bytes) !== undefined;
  };
  for (let value = 0; value < 256; value++) {
    assert.equal(isKnown(0, value), value <= 2, `kind ${value}`);
    assert.equal(isKnown(1, value), value <= 1, `flag ${value}`);
  }
  for (let length = 0; length < 65536; length++) {
    assert.equal(isKnown(2, length), length <= FORMER_NAME_BYTES_MAX, `${length} bytes`);
  }
});

test('a number of 2^53 or more, and a name that is not UTF-8, are refused: with the record', () => {
  for (let offset = 8; offset < 80; offset += 8) {
    const bytes = new Uint8Array(VDISK_RECORD_BYTES);
    encodeVdiskRecord({ ...PLAIN_VDISK, certificate: PLAIN_CERTIFICATE }, bytes);
    viewOf(bytes).setBigUint64(CERTIFICATE_OFFSET + offset, 2n ** 53n, true);
    assert.equal(decodeVdiskRecord(bytes), undefined, `at ${offset}`);
  }
  const bytes = encoded({ ...PLAIN_CERTIFICATE, formerName: 'a' });
  bytes[112] = 0x80;
  assert.equal(decodeCertificate(bytes), undefined);
});

test('no flipped bit makes the decoder throw', () => {
  const bytes = encoded({ ...PLAIN_CERTIFICATE, formerName: 'golden@v1' });
  eachBitFlip(bytes, 0, CERTIFICATE_BYTES, (flipped) => decodeCertificate(flipped));
});

test('a name that does not fit is left out', () => {
  assert.equal(toFormerName('golden@v1'), 'golden@v1');
  assert.equal(toFormerName('n'.repeat(80)), 'n'.repeat(80));
  assert.equal(toFormerName('n'.repeat(81)), '');
  assert.equal(toFormerName('ö'.repeat(41)), '');
  assert.throws(() => encoded({ ...PLAIN_CERTIFICATE, formerName: 'n'.repeat(81) }), {
    name: 'InvariantError',
  });
});
