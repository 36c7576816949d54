/**
 * Makes the golden store of this format version, test/fixtures/store-v1.img.br and its list of
 * content hashes, store-v1.json:
 *
 *   npx tsx tools/make-fixture.ts
 *
 * To be run once for a format version: a store that was ever released must open for ever, so the
 * files of a released version are never made anew. The store is as a cut of power leaves it, in the
 * middle of a split and with a log that has not been replayed.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { BLOCK_BYTES, MIB } from '../src/base/units.js';
import type { Clock } from '../src/env/clock.js';
import { MemoryDevice } from '../src/env/memory-device.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { systemClock } from '../src/env/system-clock.js';
import { formatStore, openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';

const FOLDER = join(import.meta.dirname, '../test/fixtures');
const STORE_BYTES = 64 * MIB;
const GOLDEN_BYTES = 10 * MIB + 1536;

/** The store's clock, which can be held: what goes on in the background stands still then. */
class HeldClock implements Clock {
  isHeld = false;

  nowMs(): number {
    return systemClock.nowMs();
  }

  wallMs(): number {
    return 1_700_000_000_000;
  }

  setTimer(delayMs: number, callback: () => void): ReturnType<Clock['setTimer']> {
    return systemClock.setTimer(delayMs, callback);
  }

  async yield(): Promise<void> {
    await systemClock.yield();
    if (this.isHeld) await new Promise(() => undefined);
  }
}

/** Text that tells where it was written, and compresses well. */
function textOf(name: string, offset: number, length: number): Uint8Array {
  const text = `${name} at ${offset}\n`;
  return Buffer.alloc(length, text);
}

async function fill(store: Store, name: string, offset: number, length: number): Promise<void> {
  const disk = store.vdisk(name);
  for (let at = offset; at < offset + length; at += 16 * BLOCK_BYTES) {
    const part = Math.min(16 * BLOCK_BYTES, offset + length - at);
    await disk.write(at, textOf(name, at, part));
  }
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

async function makeContent(store: Store): Promise<void> {
  await store.createVdisk('golden', GOLDEN_BYTES);
  await fill(store, 'golden', 0, 6 * MIB);
  await fill(store, 'golden', 8 * MIB, GOLDEN_BYTES - 8 * MIB);
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await fill(store, 'golden', MIB, 200 * BLOCK_BYTES);
  await store.vdisk('golden').trim(5 * MIB, 700_000);
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
  for (const name of ['plain', 'shared', 'split', 'small']) await store.clone('golden@v1', name);
  await store.clone('golden@v2', 'second');
  await fill(store, 'split', 3 * MIB, 40 * BLOCK_BYTES);
  await store.snapshot([{ vdisk: 'split', snapshot: 'before' }]);
  await fill(store, 'split', 4 * MIB + 512, 5000);
  await store.vdisk('split').trim(9 * MIB, 100_000);
  await store.resize('small', 2 * MIB + 512);
  await store.resize('small', 3 * MIB);
  await store.createVdisk('huge', 2 ** 50);
  await fill(store, 'huge', 2 ** 50 - 8192, 8192);
  const shared = await store.split('shared', { mode: 'share' });
  await shared.done;
  await fill(store, 'shared', 64 * BLOCK_BYTES, 3 * BLOCK_BYTES);
  await store.consistencyPoint();
}

/** Lets the split go on until it stands in the middle, and holds it there. */
async function splitHalf(store: Store, clock: HeldClock): Promise<void> {
  const job = await store.split('split', { mode: 'copy' });
  job.done.catch(() => undefined);
  for (;;) {
    const state = job.state();
    if (state === undefined) throw new Error('the split was over before it could be held');
    if (state.positionBytes > 0) break;
    await systemClock.yield();
  }
  await store.consistencyPoint();
  clock.isHeld = true;
  if (job.state() === undefined) throw new Error('the split was over before it could be held');
}

async function main(): Promise<void> {
  const device = new MemoryDevice({ sizeBytes: STORE_BYTES });
  const uuid = '6b65696b690000000000000000000001';
  await formatStore({ kind: 'device', device }, { uuid });
  const clock = new HeldClock();
  const store = await openStore(
    { kind: 'device', device: device.reopen() },
    { clock, random: seededRandom(1), cpIntervalMs: 3_600_000, memoryBytes: 16 * MIB },
  );
  await makeContent(store);
  await splitHalf(store, clock);
  // From here on the log alone knows it.
  for (const name of ['split', 'plain', 'golden']) {
    await store.vdisk(name).write(7 * MIB + 100, textOf(`${name}, flushed`, 0, 9000));
    await store.vdisk(name).writeZeroes(2 * MIB, 10_000);
    await store.vdisk(name).flush();
  }
  await store.rename('second', 'renamed');
  const image = device.duplicate();
  const disks: Record<string, { sizeBytes: number; sha256: string }> = {};
  for (const { name, sizeBytes } of store.list()) {
    if (name !== 'huge') disks[name] = { sizeBytes, sha256: await hashOf(store, name) };
  }
  const bytes = new Uint8Array(STORE_BYTES);
  await image.read(0, [bytes]);
  const compressed = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_QUALITY]: 9 },
  });
  writeFileSync(join(FOLDER, 'store-v1.img.br'), compressed);
  const facts = { formatVersion: 1, storeBytes: STORE_BYTES, split: 'split', disks };
  writeFileSync(join(FOLDER, 'store-v1.json'), `${JSON.stringify(facts, undefined, 2)}\n`);
  console.log(`store-v1.img.br: ${compressed.length} bytes; ${Object.keys(disks).length} disks`);
  // The held split would keep the process alive for ever if it could.
  process.exit(0);
}

await main();
