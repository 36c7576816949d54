/** What the rounds of split-kills did: counted, and printed as a table. */
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import type { RoundPlan } from './plan-of-round.js';
import type { SpaceNeed } from './space.js';
import type { KillFacts } from './split-watch.js';

export class KillTally {
  rounds = 0;
  fioBlocks = 0;
  #underWay = 0;
  #planned = 0;
  #filled = 0;
  #allowed = 0;
  #againMax = 0;
  #needed = 0;
  #metaOverMax = Number.NEGATIVE_INFINITY;
  readonly #kinds = new Map<string, number>();

  note({ how, shape, pace, moment }: RoundPlan, facts: KillFacts): void {
    this.rounds++;
    if (facts.wasUnderWay) this.#underWay++;
    this.#planned += facts.plannedBlocks;
    this.#filled += facts.lives.reduce((sum, each) => sum + each, 0);
    this.#allowed += facts.allowedBlocks;
    this.#againMax = Math.max(this.#againMax, facts.againBlocks);
    for (const kind of [how, shape, pace, moment]) {
      this.#kinds.set(kind, (this.#kinds.get(kind) ?? 0) + 1);
    }
  }

  noteSpace(metaBlocks: number, need: SpaceNeed): void {
    this.#needed += need.dataBlocks;
    this.#metaOverMax = Math.max(this.#metaOverMax, metaBlocks - need.metaBlocksMax);
  }

  /** For a run in which all was as promised: any other one ends before. */
  lines(sectorsCompared: number): string[] {
    const kinds = [...this.#kinds].map(([kind, count]) => `${kind} ${count}`);
    const rows: [string, number | string][] = [
      ['rounds, SIGKILLs', this.rounds],
      ['splits under way again after it', this.#underWay],
      ['blocks planned', this.#planned],
      ['blocks filled, all lives, as seen', this.#filled],
      ['since the last CP before a kill', this.#allowed],
      ['filled twice at most, in a round', this.#againMax],
      ['certificates with a refutation', 0],
      ['sectors verified, lost', `${sectorsCompared.toLocaleString('en')}, 0`],
      ['fio: flushed blocks verified', this.fioBlocks],
      ['left for the clones, MiB of data', Math.round((this.#needed * BLOCK_BYTES) / MIB)],
      ['metadata over what they need', `${this.#metaOverMax} blocks at most`],
    ];
    const table = rows.map(([name, value]) => `${name.padEnd(34)} ${value.toLocaleString('en')}`);
    return [...table, kinds.join(', ')];
  }
}
