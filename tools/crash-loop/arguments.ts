/** What the commands that kill servers are given: rounds, a seed, a kind of store. */
import { parseArgs } from 'node:util';
import { mayMount } from '../../test/support/mounted-vdisk.js';
import { type OnStore, STORE_KINDS, type StoreKind } from './on-store.js';

interface KillArguments {
  readonly rounds: number;
  readonly seed: number;
  readonly kinds: readonly StoreKind[];
}

/** Ends the process if they make no sense. */
function readArguments(rounds: string): KillArguments {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: rounds },
      seed: { type: 'string', default: '1' },
      store: { type: 'string' },
    },
  });
  return {
    rounds: toCount('rounds', values.rounds),
    seed: toCount('seed', values.seed),
    kinds: toKinds(values.store),
  };
}

function toCount(name: string, text: string): number {
  const count = Number(text);
  if (Number.isSafeInteger(count) && count > 0) return count;
  console.error(`--${name} is a count, not ${text}`);
  process.exit(2);
}

function toKinds(text: string | undefined): readonly StoreKind[] {
  if (text === undefined) return mayMount() ? STORE_KINDS : ['file'];
  const found = STORE_KINDS.find((kind) => kind === text);
  if (found !== undefined) return [found];
  console.error(`--store is one of ${STORE_KINDS.join(', ')}, not ${text}`);
  process.exit(2);
}

/** Shares the rounds out among the kinds of stores; ends the process at the first violation. */
export async function runOnStores(
  rounds: string,
  run: (options: OnStore) => Promise<{ readonly lines: readonly string[] }>,
): Promise<void> {
  const { rounds: all, seed, kinds } = readArguments(rounds);
  const say = (line: string): void => console.log(line);
  for (const [index, store] of kinds.entries()) {
    const share = Math.floor((all + index) / kinds.length);
    if (share === 0) continue;
    const on = store === 'file' ? 'sparse file' : 'loop device';
    say(`${share} rounds, store: a ${on}, seed ${seed}`);
    try {
      const { lines } = await run({ store, rounds: share, seed, say });
      for (const line of lines) say(line);
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      process.exit(1);
    }
  }
}
