/**
 * Kills a server under load with SIGKILL, and looks whether anything that was flushed is lost.
 *
 *   npm run crash-loop -- --rounds 100              on a sparse file, and on a loop device if root
 *   npm run crash-loop -- --rounds 20 --seed 7 --store file   (or: device)
 *
 * SIGKILL takes what the process had in memory; what it had handed to the kernel stays. Cuts of the
 * power, which take that as well, are the simulator's part (npm run sim).
 */
import { parseArgs } from 'node:util';
import { mayMount } from '../test/support/mounted-vdisk.js';
import { crashLoopOn, STORE_KINDS, type StoreKind } from './crash-loop/on-store.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    store: { type: 'string' },
  },
});

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

const rounds = toCount('rounds', values.rounds);
const seed = toCount('seed', values.seed);
const kinds = toKinds(values.store);
const say = (line: string): void => console.log(line);
if (!mayMount())
  say('Not allowed to mount: no loop device as store, and no SQLite on a mounted file system.');

for (const [index, store] of kinds.entries()) {
  const share = Math.floor((rounds + index) / kinds.length);
  if (share === 0) continue;
  say(
    `${share} rounds, store: a ${store === 'file' ? 'sparse file' : 'loop device'}, seed ${seed}`,
  );
  try {
    const { lines } = await crashLoopOn({ store, rounds: share, seed, say });
    for (const line of lines) say(line);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}
