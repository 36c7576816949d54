/**
 * The scripted workload: every kind of act once or twice, one after the other, with both modes of
 * split, merges and frees under way beside them.
 */
import { BLOCK_BYTES, GIB, KIB, MIB, PIB, SECTOR_BYTES } from '../src/base/units.js';
import type { SplitOptions } from '../src/main/store.js';
import {
  cloneNamed,
  createNamed,
  deleteInUse,
  deleteOne,
  renameTo,
  resizeTo,
  snapshotNamed,
} from './acts/admin.js';
import { flushDisk, readRange, writeRange, zeroRange } from './acts/io.js';
import { consistencyPoint, diffOf, idle, list, type SplitMode, splitDisk } from './acts/jobs.js';
import { actOnSplit, type Policy, type SplitAct } from './acts/split-control.js';
import type { Life } from './life.js';
import type { ModelDisk } from './model/disk.js';

export class Script {
  readonly #life: Life;

  constructor(life: Life) {
    this.#life = life;
  }

  disk(name: string): ModelDisk {
    const found = this.#life.model.find(name);
    if (found === undefined) throw new Error(`the script has no ${name} yet`);
    return found;
  }

  async create(name: string, sizeBytes: number): Promise<void> {
    await createNamed(this.#life, name, sizeBytes);
  }

  async write(name: string, offset: number, length: number, fua = false): Promise<void> {
    await writeRange(this.#life, this.disk(name), { offset, length }, fua, 'write');
  }

  async zero(name: string, act: 'trim' | 'write-zeroes', offset: number, length: number) {
    await zeroRange(this.#life, this.disk(name), { offset, length }, act, false);
  }

  async read(name: string): Promise<void> {
    const disk = this.disk(name);
    await readRange(this.#life, disk, { offset: 0, length: Math.min(disk.sizeBytes, 2 * MIB) });
  }

  async flush(name: string): Promise<void> {
    await flushDisk(this.#life, this.disk(name));
  }

  async snapshot(names: readonly string[], as: string): Promise<void> {
    const disks = names.map((name) => this.disk(name));
    await snapshotNamed(this.#life, disks, as);
  }

  async clone(source: string, name: string): Promise<void> {
    await cloneNamed(this.#life, this.disk(source), name);
  }

  async resize(name: string, sizeBytes: number): Promise<void> {
    await resizeTo(this.#life, this.disk(name), sizeBytes);
  }

  async delete(name: string): Promise<void> {
    await deleteOne(this.#life, this.disk(name));
  }

  async rename(name: string, ownName: string): Promise<void> {
    await renameTo(this.#life, this.disk(name), ownName);
  }

  /** Begins a split; what comes back waits for its end. */
  async split(name: string, mode: SplitMode, policy?: Policy): Promise<() => Promise<void>> {
    const job = await splitDisk(this.#life, this.disk(name), mode, policy);
    return async () => job?.done;
  }

  async control(name: string, act: SplitAct, options?: SplitOptions): Promise<void> {
    await actOnSplit(this.#life, this.disk(name), () => act, options);
  }

  async deleteInUse(name: string, inUse: 'defer' | 'split'): Promise<void> {
    await deleteInUse(this.#life, this.disk(name), inUse);
  }

  async diff(from: string, to: string): Promise<void> {
    await diffOf(this.#life, this.disk(from), this.disk(to));
  }
}

export async function runScript(life: Life): Promise<void> {
  const script = new Script(life);
  await buildGolden(script);
  await cloneAndSplit(script, life);
  await resizeAndMerge(script, life);
  await emptyIt(script, life);
}

/**
 * Leaves a store with something of everything: data in trees and in the log, large and small,
 * clones, copied and shared blocks, acts in the log, and a last write that nobody flushed.
 */
export async function populate(life: Life): Promise<void> {
  const script = new Script(life);
  await buildGolden(script);
  await cloneAndSplit(script, life);
  await idle(life);
  await consistencyPoint(life);
  await script.write('a', 20 * KIB, 5 * BLOCK_BYTES);
  await script.write('c3', 100, 3000, true);
  await script.write('d4', 64 * KIB, 80 * KIB);
  await script.zero('c2', 'trim', 0, 8 * KIB);
  await script.flush('d4');
  await script.flush('c2');
  await script.create('late', 64 * KIB);
  await script.snapshot(['c1', 'b'], 'late');
  await script.write('b', 3 * KIB, 2 * KIB);
  await script.flush('b');
  await script.write('tiny', 0, 100);
  await script.write('c1', 0, 3 * BLOCK_BYTES);
  await script.flush('c1');
}

async function buildGolden(script: Script): Promise<void> {
  await script.create('a', MIB + 40 * KIB + SECTOR_BYTES);
  await script.create('b', 100 * KIB);
  await script.create('huge', PIB);
  await script.create('tiny', SECTOR_BYTES);
  await script.write('a', 0, 3 * BLOCK_BYTES);
  await script.write('a', 5000, 7000);
  await script.write('a', 128 * KIB, 150 * KIB + SECTOR_BYTES);
  await script.write('a', MIB - 8 * KIB, 16 * KIB);
  await script.flush('a');
  await script.write('a', MIB + 40 * KIB, SECTOR_BYTES);
  await script.write('b', 0, 20 * KIB, true);
  await script.write('b', 99 * KIB, KIB);
  await script.write('huge', GIB - BLOCK_BYTES, 2 * BLOCK_BYTES);
  await script.write('huge', PIB - BLOCK_BYTES, BLOCK_BYTES, true);
  await script.write('tiny', 3, 500);
  await script.snapshot(['a', 'b'], 's1');
}

async function cloneAndSplit(script: Script, life: Life): Promise<void> {
  await script.clone('a@s1', 'c1');
  await script.clone('a@s1', 'c2');
  await script.write('a', 4 * KIB, 12 * KIB);
  await script.zero('a', 'trim', 130 * KIB, 20 * KIB);
  await script.write('c1', 8 * KIB + 100, 3000);
  await script.zero('c1', 'trim', 140 * KIB, 16 * KIB);
  await script.flush('c1');
  await script.diff('a@s1', 'a');
  const copied = await script.split('c1', 'copy');
  await script.write('c1', 200 * KIB, 9 * KIB);
  await script.read('c1');
  await script.write('c2', 0, 100);
  await script.zero('c2', 'write-zeroes', 150 * KIB, 10 * KIB);
  const shared = await script.split('c2', 'share');
  await script.snapshot(['c2'], 't1');
  await script.write('c2', 160 * KIB, 5000);
  await copied();
  await script.flush('c2');
  await shared();
  await script.read('c2');
  await script.clone('c2@t1', 'c3');
  await script.write('c3', 12 * KIB, BLOCK_BYTES);
  await script.snapshot(['c3'], 't2');
  await script.clone('c3@t2', 'c4');
  const deeper = await script.split('c4', 'copy');
  await script.write('c4', 20 * KIB, 70 * KIB);
  await script.rename('c4', 'd4');
  await deeper();
  await list(life);
}

async function resizeAndMerge(script: Script, life: Life): Promise<void> {
  await script.resize('a', 133 * KIB + SECTOR_BYTES);
  await script.write('a', 132 * KIB, KIB);
  await script.resize('a', 2 * MIB + SECTOR_BYTES);
  await script.write('a', MIB + 100 * KIB, 6 * KIB, true);
  await script.snapshot(['a'], 's2');
  await script.diff('a@s1', 'a@s2');
  await script.write('a', 0, 2 * BLOCK_BYTES);
  // Nobody but a reads through s1 any more: it merges into s2.
  await script.delete('a@s1');
  await script.write('a', 16 * KIB, 40 * KIB);
  await idle(life);
  await script.read('a');
  await script.delete('c3@t2');
  await script.zero('huge', 'trim', 0, PIB - GIB);
  await script.write('huge', 4 * GIB, BLOCK_BYTES);
  await consistencyPoint(life);
}

async function emptyIt(script: Script, life: Life): Promise<void> {
  await script.delete('c1');
  await script.delete('c2@t1');
  await script.delete('huge');
  await script.write('tiny', 0, SECTOR_BYTES, true);
  await script.delete('c3');
  await script.write('d4', 30 * KIB, 2 * KIB);
  await script.rename('b@s1', 's9');
  await script.delete('b@s9');
  await script.delete('b');
  await idle(life);
  await script.flush('d4');
  await list(life);
}
