/**
 * The scripted splits: in each mode siblings that split together and are paused, changed, cancelled
 * and undone on the way, a backing store that goes with and without a name, and whole shares.
 */
import { BLOCK_BYTES, KIB, MIB, PIB } from '../src/base/units.js';
import { consistencyPoint, idle, list, type SplitMode } from './acts/jobs.js';
import type { Policy } from './acts/split-control.js';
import type { Life } from './life.js';
import { Script } from './script.js';

/** So slow that acts come in the middle. */
const SLOW: Policy = { pace: 'rate', rateBytesPerSecond: MIB };
const NOW: Policy = { pace: 'now' };

const SIZE = 2 * MIB + 300 * KIB;

export async function runSplitScript(life: Life): Promise<void> {
  const script = new Script(life);
  await splitTogether(script, life, 'copy');
  await splitTogether(script, life, 'share');
  await shareWhole(script, life);
  await list(life);
}

/** Names begin with the mode. */
async function splitTogether(script: Script, life: Life, mode: SplitMode): Promise<void> {
  const name = (end: string): string => `${mode}-${end}`;
  const [golden, past] = [name('golden'), `${name('golden')}@v`];
  const [paused, undone, kept, last] = ['paused', 'undone', 'kept', 'last'].map(name) as [
    string,
    string,
    string,
    string,
  ];
  await script.create(golden, SIZE);
  await script.write(golden, 0, 300 * KIB);
  await script.write(golden, MIB + 5000, 100 * KIB);
  await script.write(golden, 2 * MIB, 150 * KIB);
  await script.snapshot([golden], 'v');
  for (const clone of [paused, undone, kept, last]) {
    await script.clone(past, clone);
    // Nothing of it can be shared whole.
    for (const at of [0, MIB, 2 * MIB]) await script.write(clone, at + 8 * KIB, BLOCK_BYTES);
  }
  const ended = await script.split(paused, mode, SLOW);
  await script.split(undone, mode, SLOW);
  await script.split(kept, mode, SLOW);
  await script.write(paused, 60 * KIB, 6 * KIB);
  await script.control(paused, 'pause');
  await script.flush(paused);
  await script.control(undone, 'change', { mode: mode === 'copy' ? 'share' : 'copy', ...SLOW });
  await script.snapshot([undone], 's');
  await script.control(kept, 'cancel');
  await script.zero(kept, 'trim', 100 * KIB, 20 * KIB);
  await script.write(undone, 200 * KIB, 5000);
  await script.control(undone, 'undo');
  await script.write(undone, MIB + 40 * KIB, BLOCK_BYTES, true);
  await script.control(paused, 'resume');
  const alone = await script.split(last, mode, SLOW);
  // The name goes at once; who reads through it goes on.
  await script.deleteInUse(past, 'defer');
  await script.write(kept, 30 * KIB, 2 * BLOCK_BYTES);
  await script.control(last, 'change', { mode, ...NOW });
  await alone();
  await ended();
  await idle(life);
  const again = await script.split(undone, mode, NOW);
  await again();
  await script.read(undone);
  await script.snapshot([last], 't');
  await script.clone(`${last}@t`, name('more'));
  await script.write(name('more'), 0, 3000);
  await script.deleteInUse(`${last}@t`, 'split');
  await script.write(name('more'), MIB + 60 * KIB, 3000, true);
  await idle(life);
  await script.delete(`${undone}@s`);
  await script.delete(kept);
  await consistencyPoint(life);
}

/** Of trees of four levels, untouched and beside blocks of their own; and copied again. */
async function shareWhole(script: Script, life: Life): Promise<void> {
  await script.create('tall', PIB);
  for (const at of [0, MIB, PIB - 40 * KIB]) await script.write('tall', at, 40 * KIB);
  await script.snapshot(['tall'], 'v');
  await script.clone('tall@v', 'whole');
  await script.clone('tall@v', 'beside');
  await script.write('beside', MIB, BLOCK_BYTES);
  const [whole, beside] = [
    await script.split('whole', 'share', NOW),
    await script.split('beside', 'share', NOW),
  ];
  await whole();
  await beside();
  await script.write('whole', 8 * KIB, 5000);
  await script.deleteInUse('tall', 'defer');
  await script.flush('whole');
  await script.write('beside', PIB - BLOCK_BYTES, BLOCK_BYTES);
  await idle(life);
  await script.read('whole');
  await script.delete('beside');
  await idle(life);
}
