/**
 * The log ring beside a list of groups: appends, releases at marks, openings after a clean end and
 * after a torn last write, in rings of odd sizes, for many laps.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES, SECTOR_BYTES } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';
import type { LogEntry } from '../layout/log-entry.js';
import { LogRing, type RingMark, type RingPlace } from './log-ring.js';
import type { LogBatch } from './medium.js';

const START = 2;

/** What is known of a group: its consistency point, its FBNs, the value of its blocks. */
interface Known {
  readonly cpNumber: number;
  readonly fbns: readonly number[];
  readonly value: number;
}

class Driver {
  readonly #random: Random;
  readonly #blocks: number;
  #device: MemoryDevice;
  #ring: LogRing;
  #at: RingPlace;
  /** Groups behind the mark that an opening would begin from. */
  #groups: Known[] = [];
  #value = 0;
  appended = 0;
  full = 0;
  torn = 0;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    this.#blocks = 9 + this.#random.below(40);
    this.#device = new MemoryDevice({ sizeBytes: (START + this.#blocks) * BLOCK_BYTES });
    this.#at = {
      start: START,
      blocks: this.#blocks,
      uuid: new Uint8Array(16).fill(seed),
      epoch: 1,
      sequence: 1,
      position: 0,
      name: 'ring',
    };
    this.#ring = new LogRing(this.#device, this.#at);
  }

  async run(): Promise<void> {
    for (let step = 0; step < 150; step++) {
      const draw = this.#random.below(10);
      if (draw < 6) await this.#append();
      else if (draw < 8) this.#release();
      else if (draw < 9) await this.#reopen();
      else await this.#tear();
    }
    await this.#reopen();
  }

  #newBatch(): { batch: LogBatch; known: Known } {
    const value = 1 + (this.#value++ % 255);
    const count = this.#random.below(this.#random.chance(0.2) ? this.#blocks : 4);
    const cpNumber = 1 + this.#random.below(3);
    const payload: Uint8Array[] = [];
    const entries: LogEntry[] = [];
    const fbns: number[] = [];
    for (let index = 0; index < count; index++) {
      const block = new Uint8Array(BLOCK_BYTES).fill(value);
      const fbn = this.#random.below(1000);
      payload.push(block);
      fbns.push(fbn);
      entries.push({ kind: 'data', treeId: 1, fbn, crc: crc32(block), payloadIndex: index });
    }
    if (count === 0) entries.push({ kind: 'range', treeId: 1, fbn: 1, blocks: 1, to: 'hole' });
    return { batch: { cpNumber, units: [entries], payload }, known: { cpNumber, fbns, value } };
  }

  async #append(): Promise<void> {
    const made = Array.from({ length: 1 + this.#random.below(3) }, () => this.#newBatch());
    const outcome = await this.#ring.append(made.map(({ batch }) => batch));
    if (outcome === 'full') {
      this.full++;
      return;
    }
    this.appended += made.length;
    this.#groups.push(...made.map(({ known }) => known));
  }

  /** A consistency point is durable: it was frozen now, as there is nothing else to tell. */
  #release(): void {
    const { mark } = this.#ring;
    this.#ring.release(mark);
    this.#begin(mark);
  }

  #begin(mark: RingMark): void {
    this.#at = {
      ...this.#at,
      sequence: mark.sequence,
      position: this.#ring.positionOf(mark),
    };
    this.#groups = [];
  }

  async #reopen(): Promise<void> {
    for (const pass of ['survey', 'apply'] as const) {
      this.#ring = new LogRing(this.#device, this.#at);
      const found: Known[] = [];
      for await (const { cpNumber, entries, payload } of this.#ring.recover(pass)) {
        const data = entries.filter((entry) => entry.kind === 'data');
        const first = data[0];
        const value = first === undefined || pass === 'survey' ? 0 : payload(first.payloadIndex)[0];
        found.push({ cpNumber, fbns: data.map(({ fbn }) => fbn), value: value ?? -1 });
      }
      const expected = this.#groups.map((group) => ({
        ...group,
        value: pass === 'survey' || group.fbns.length === 0 ? 0 : group.value,
      }));
      assert.deepEqual(found, expected, pass);
    }
    this.#ring = new LogRing(this.#device, this.#at);
    for await (const { entries } of this.#ring.recover('apply')) assert.ok(entries.length > 0);
  }

  /** Power fails in an append: some sectors of its groups have landed, in order of the groups. */
  async #tear(): Promise<void> {
    const before = this.#device.duplicate();
    const { batch } = this.#newBatch();
    if ((await this.#ring.append([batch])) === 'full') return;
    this.torn++;
    const old = new Uint8Array(this.#blocks * BLOCK_BYTES);
    const now = new Uint8Array(this.#blocks * BLOCK_BYTES);
    await before.read(START * BLOCK_BYTES, [old]);
    await this.#device.read(START * BLOCK_BYTES, [now]);
    let lost = 0;
    for (let at = 0; at < now.length; at += SECTOR_BYTES) {
      const mine = now.subarray(at, at + SECTOR_BYTES);
      if (Buffer.compare(mine, old.subarray(at, at + SECTOR_BYTES)) === 0) continue;
      if (this.#random.chance(0.5)) continue;
      now.set(old.subarray(at, at + SECTOR_BYTES), at);
      lost++;
    }
    await before.write(START * BLOCK_BYTES, [now]);
    this.#device = before;
    // What was lost may have been padding: then the group is whole.
    let found = 0;
    for await (const each of new LogRing(before, this.#at).recover('apply')) {
      if (each.entries.length > 0) found++;
    }
    if (lost === 0) assert.equal(found, this.#groups.length + 1);
    if (found > this.#groups.length) {
      const fbns = batch.units.flat().flatMap((entry) => (entry.kind === 'data' ? entry.fbn : []));
      const value = batch.payload[0]?.[0] ?? 0;
      this.#groups.push({ cpNumber: batch.cpNumber, fbns, value });
    }
    await this.#reopen();
  }
}

describe('log ring beside a list', () => {
  test('seeds', async () => {
    const sum = { appended: 0, full: 0, torn: 0 };
    for (const seed of fuzzSeeds(40)) {
      const driver = new Driver(seed);
      await driver.run();
      sum.appended += driver.appended;
      sum.full += driver.full;
      sum.torn += driver.torn;
    }
    for (const [what, count] of Object.entries(sum)) assert.ok(count > 100, `${count} ${what}`);
  });
});
