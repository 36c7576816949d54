/**
 * The simulated device beside what a caller may conclude from calls and answers alone.
 *
 * A sector may hold, after a cut, the version of any write unless a durable write came after it;
 * a read may see any version that no completed write had replaced before the read began. "After"
 * means: called when the other had been answered. Every such outcome must be possible, too: a
 * device that is kinder than its contract hides bugs.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_BYTES, SECTOR_BYTES } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { SimulatedDevice } from './simulated-device.js';
import { VirtualClock } from './virtual-clock.js';

const BLOCKS = 8;
const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES;

/** One write, with the moments of its call, its answer, and the sync that made it durable. */
interface Version {
  readonly id: number;
  readonly firstSector: number;
  readonly endSector: number;
  readonly calledAt: number;
  answeredAt: number;
  isDurable: boolean;
}

class Model {
  readonly versions: Version[] = [];
  #moment = 0;

  constructor() {
    // The zeros of a new device.
    const endSector = BLOCKS * SECTORS_PER_BLOCK;
    const zeros = { id: 0, firstSector: 0, endSector, calledAt: 0, answeredAt: 0, isDurable: true };
    this.versions.push(zeros);
  }

  nextMoment(): number {
    return ++this.#moment;
  }

  /** Versions of the sector that no version in `replacing` came after. */
  candidates(sector: number, replacing: (version: Version) => boolean): Set<number> {
    const here = this.versions.filter((v) => v.firstSector <= sector && sector < v.endSector);
    const floors = here.filter(replacing);
    const left = here.filter((v) => !floors.some((floor) => v.answeredAt < floor.calledAt));
    return new Set(left.map((version) => version.id));
  }
}

/** How often the outcomes were seen that a device may have but need not have. */
interface Coverage {
  newest: number;
  older: number;
  oldestDurable: number;
  tornWrites: number;
  cuts: number;
}

class Driver {
  readonly clock = new VirtualClock();
  readonly random: Random;
  device: SimulatedDevice;
  model = new Model();
  readonly coverage: Coverage;
  #isOff = false;

  constructor(seed: number, coverage: Coverage) {
    this.random = seededRandom(seed);
    this.coverage = coverage;
    const random = seededRandom(seed + 1_000_000);
    this.device = new SimulatedDevice({
      clock: this.clock,
      random,
      sizeBytes: BLOCKS * BLOCK_BYTES,
    });
  }

  async run(): Promise<void> {
    const onCut = new Promise<void>((resolve) => {
      this.device.cutAtWrite(5 + this.random.below(60), resolve);
    });
    for (let client = 0; client < 3; client++) void this.#client();
    await this.clock.run(onCut);
    this.#isOff = true;
    this.coverage.cuts++;
    // One cut has many outcomes: each must be legal.
    for (let outcome = 0; outcome < 8; outcome++) await this.#check(this.device.cutPower());
  }

  async #client(): Promise<void> {
    while (!this.#isOff) {
      const act = this.random.below(10);
      if (act < 4) await this.#write(false);
      else if (act < 6) await this.#write(true);
      else if (act < 7) await this.#sync();
      else if (act < 9) await this.#read();
      else await this.clock.sleep(this.random.below(3));
    }
  }

  async #write(isDurable: boolean): Promise<void> {
    const blocks = 1 + this.random.below(3);
    const first = this.random.below(BLOCKS - blocks + 1);
    const version: Version = {
      id: this.model.versions.length,
      firstSector: first * SECTORS_PER_BLOCK,
      endSector: (first + blocks) * SECTORS_PER_BLOCK,
      calledAt: this.model.nextMoment(),
      answeredAt: Infinity,
      isDurable: false,
    };
    this.model.versions.push(version);
    const data = new Uint32Array((blocks * BLOCK_BYTES) / 4).fill(version.id);
    const from = [new Uint8Array(data.buffer)];
    const offset = first * BLOCK_BYTES;
    await (isDurable ? this.device.writeDurable(offset, from) : this.device.write(offset, from));
    assert.equal(this.#isOff, false, 'no answer without power');
    version.answeredAt = this.model.nextMoment();
    version.isDurable = isDurable;
  }

  async #sync(): Promise<void> {
    const covered = this.model.versions.filter((version) => version.answeredAt < Infinity);
    await this.device.sync();
    for (const version of covered) version.isDurable = true;
  }

  async #read(): Promise<void> {
    const calledAt = this.model.nextMoment();
    const words = new Uint32Array((BLOCKS * BLOCK_BYTES) / 4);
    await this.device.read(0, [new Uint8Array(words.buffer)]);
    for (let sector = 0; sector < BLOCKS * SECTORS_PER_BLOCK; sector++) {
      const id = idOf(words, sector);
      const legal = this.model.candidates(sector, (version) => version.answeredAt < calledAt);
      assert.ok(legal.has(id), `a read of sector ${sector} saw ${id}, not one of ${[...legal]}`);
    }
  }

  async #check(device: SimulatedDevice): Promise<void> {
    const words = new Uint32Array((BLOCKS * BLOCK_BYTES) / 4);
    await this.clock.run(device.read(0, [new Uint8Array(words.buffer)]));
    const seen = new Set<number>();
    for (let sector = 0; sector < BLOCKS * SECTORS_PER_BLOCK; sector++) {
      const id = idOf(words, sector);
      const legal = this.model.candidates(sector, (version) => version.isDurable);
      assert.ok(legal.has(id), `sector ${sector} holds ${id}, not one of ${[...legal]}`);
      seen.add(id);
      if (legal.size < 2) continue;
      if (id === Math.max(...legal)) this.coverage.newest++;
      else if (id === Math.min(...legal)) this.coverage.oldestDurable++;
      else this.coverage.older++;
    }
    for (const id of seen) {
      const version = this.model.versions[id];
      if (version === undefined || id === 0) continue;
      const { firstSector, endSector } = version;
      const ids = new Set<number>();
      for (let sector = firstSector; sector < endSector; sector++) ids.add(idOf(words, sector));
      if (ids.has(id) && ids.size > 1) this.coverage.tornWrites++;
    }
  }
}

/** The version in a sector, which must be the same in all of its words. */
function idOf(words: Uint32Array, sector: number): number {
  const part = words.subarray((sector * SECTOR_BYTES) / 4, ((sector + 1) * SECTOR_BYTES) / 4);
  const id = part[0] ?? -1;
  assert.ok(
    part.every((word) => word === id),
    `sector ${sector} is torn`,
  );
  return id;
}

describe('simulated device beside the contract', () => {
  test('300 seeds: every read and every outcome of a cut is legal; all kinds occur', async () => {
    const coverage = { newest: 0, older: 0, oldestDurable: 0, tornWrites: 0, cuts: 0 };
    for (let seed = 1; seed <= 300; seed++) await new Driver(seed, coverage).run();
    assert.equal(coverage.cuts, 300);
    for (const [outcome, count] of Object.entries(coverage)) {
      assert.ok(count > 250, `${outcome} occurred ${count} times`);
    }
  });
});
