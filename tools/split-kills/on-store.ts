/** Rounds of split-kills from an empty store in a folder of its own to its end. */
import { FLAGS, type OnStore, onNewStore } from '../crash-loop/on-store.js';
import type { KillTally } from './kill-tally.js';
import { SplitKills } from './split-kills.js';

/** A golden disk and three copies of it, and as much again. */
const STORE_SIZE = '2G';

export async function splitKillsOn(
  options: OnStore & { readonly goldenBytes: number },
): Promise<{ readonly lines: string[]; readonly tally: KillTally }> {
  const { seed, rounds, goldenBytes, say } = options;
  const store = { ...options, command: 'split-kills', size: STORE_SIZE, flags: FLAGS };
  return onNewStore(store, async ({ server, folder }) => {
    const kills = new SplitKills({ seed, server, folder, flags: FLAGS, goldenBytes });
    await kills.run(rounds, (round, said) => say(`round ${round}: ${said}`));
    return { lines: kills.lines(), tally: kills.tally };
  });
}
