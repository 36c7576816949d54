/** What the rounds of a crash loop did: counted, and printed as a table. */
import type { Coverage } from '../../sim/coverage.js';

export interface LoadFacts {
  /** What was checked: transactions, blocks. */
  readonly unit: string;
  readonly checked: number;
}

export class Tally {
  rounds = 0;
  kills = 0;
  killsInStart = 0;
  splitsCut = 0;
  /** Acts that were not answered at a kill, by kind. */
  readonly #underWay = new Map<string, number>();
  readonly #loads = new Map<string, { rounds: number; checked: number; unit: string }>();

  /** @param underWay  `number kind what, since ...` */
  noteKill(underWay: readonly string[]): void {
    this.kills++;
    for (const text of underWay) {
      const kind = text.split(' ')[1] ?? '';
      this.#underWay.set(kind, (this.#underWay.get(kind) ?? 0) + 1);
      if (kind === 'split-end') this.splitsCut++;
    }
  }

  noteLoad(name: string, { unit, checked }: LoadFacts): void {
    const load = this.#loads.get(name) ?? { rounds: 0, checked: 0, unit };
    load.rounds++;
    load.checked += checked;
    this.#loads.set(name, load);
  }

  underWayCount(kind: string): number {
    return this.#underWay.get(kind) ?? 0;
  }

  checkedBy(load: string): number {
    return this.#loads.get(load)?.checked ?? 0;
  }

  /** For a run in which nothing was lost: any other one ends before. */
  lines(coverage: Coverage): string[] {
    const sum = (kinds: readonly string[]): number =>
      kinds.reduce((total, kind) => total + coverage.countOf(kind), 0);
    const kinds = coverage.kinds();
    const writes = kinds.filter((kind) => /^write-(?!zeroes)/.test(kind));
    const rows: [string, number | string][] = [
      ['rounds', this.rounds],
      ['SIGKILLs', `${this.kills + this.killsInStart}, ${this.killsInStart} while starting`],
      ['writes', `${sum(writes)}, ${sum(['write-fua'])} with FUA`],
      ['trims and zeroes', sum(['trim', 'write-zeroes'])],
      ['flushes', sum(['flush'])],
      ['splits', `${coverage.totals.splitsStarted} begun or watched, ${this.splitsCut} cut`],
      ['sectors verified', coverage.totals.sectorsCompared],
      ['sectors lost', 0],
    ];
    for (const [name, { rounds, checked, unit }] of this.#loads) {
      rows.push([`${name} as load`, `${rounds} rounds, ${checked} ${unit} verified, 0 lost`]);
    }
    const table = rows.map(([name, value]) => `${name.padEnd(20)} ${value.toLocaleString('en')}`);
    const acts = [...this.#underWay].sort(([, a], [, b]) => b - a);
    const words = acts.map(([kind, count]) => `${kind} ${count}`);
    return [...table, 'under way at a kill:', ...wrapped(words)];
  }
}

function wrapped(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length > 96) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${last}, ${word}`;
  }
  return lines;
}
