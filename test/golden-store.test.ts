/**
 * The golden stores: one of every released format version, opened for ever. Each is as a cut of
 * power left it, with a split in its middle and a log that was never replayed
 * (tools/make-fixture.ts).
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { MIB } from '../src/base/units.js';
import { MemoryDevice } from '../src/env/memory-device.js';
import { checkStore } from '../src/main/check.js';
import { openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';

interface Facts {
  readonly formatVersion: number;
  readonly storeBytes: number;
  readonly split: string;
  readonly disks: Readonly<Record<string, { readonly sizeBytes: number; readonly sha256: string }>>;
}

const FOLDER = join(import.meta.dirname, 'fixtures');

function readFacts(name: string): Facts {
  return JSON.parse(readFileSync(join(FOLDER, `${name}.json`), 'utf8')) as Facts;
}

async function newDevice(name: string): Promise<MemoryDevice> {
  const bytes = brotliDecompressSync(readFileSync(join(FOLDER, `${name}.img.br`)));
  const device = new MemoryDevice({ sizeBytes: bytes.length });
  await device.write(0, [bytes]);
  return device;
}

async function hashOf(store: Store, name: string): Promise<string> {
  const { sizeBytes } = store.show(name);
  const hash = createHash('sha256');
  const buffer = new Uint8Array(MIB);
  for (let at = 0; at < sizeBytes; at += MIB) {
    const part = buffer.subarray(0, Math.min(MIB, sizeBytes - at));
    await store.vdisk(name).read(at, part);
    hash.update(part);
  }
  return hash.digest('hex');
}

async function assertContent(store: Store, facts: Facts): Promise<void> {
  for (const [name, { sizeBytes, sha256 }] of Object.entries(facts.disks)) {
    assert.equal(store.show(name).sizeBytes, sizeBytes, name);
    assert.equal(await hashOf(store, name), sha256, name);
  }
}

async function assertSound(device: MemoryDevice): Promise<void> {
  const report = await checkStore({ kind: 'device', device: device.duplicate() });
  assert.deepEqual(report.faults, []);
}

for (const version of [1]) {
  describe(`golden store of format version ${version}`, () => {
    const name = `store-v${version}`;
    const facts = readFacts(name);

    test('it is what it should be before it is opened', async () => {
      assert.equal(facts.formatVersion, version);
      const device = await newDevice(name);
      assert.equal(device.sizeBytes, facts.storeBytes);
      await assertSound(device);
    });

    test('it opens, with every disk as it was flushed, in the middle of its split', async () => {
      const device = await newDevice(name);
      const store = await openStore({ kind: 'device', device });
      assert.equal(store.stats().recovered, true);
      const { split } = store.show(facts.split);
      assert.equal(split?.state, 'filling');
      assert.ok(split.positionBytes > 0 && split.positionBytes < split.endBytes);
      assert.equal(store.show('huge').sizeBytes, 2 ** 50);
      assert.deepEqual(store.show('renamed').backing, 'golden@v2');
      await assertContent(store, facts);
      await store.idle();
      assert.equal(store.show(facts.split).split, undefined);
      await assertContent(store, facts);
      await store.close();
      await assertSound(device);
    });

    test('its disks can be changed and deleted, until nothing is left', async () => {
      const device = await newDevice(name);
      const store = await openStore({ kind: 'device', device });
      await store.idle();
      const empty = store.stats().totalBytes;
      for (let round = 0; store.list().length > 0; round++) {
        assert.ok(round < 20, 'something can always be deleted');
        for (const each of store.list()) {
          // A snapshot with one holder merges into it.
          const isHeld = each.holders.length > 1;
          const hasSnapshots = store.list().some((other) => other.name.startsWith(`${each.name}@`));
          if (!isHeld && !hasSnapshots) await store.delete(each.name);
        }
      }
      await store.idle();
      await store.consistencyPoint();
      await store.consistencyPoint();
      // The log takes 4 MiB, and some metadata stays.
      assert.ok(
        store.stats().usedBytes < empty / 12,
        `${store.stats().usedBytes} bytes are in use`,
      );
      await store.close();
      await assertSound(device);
    });
  });
}
