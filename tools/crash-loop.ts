/**
 * Kills a server under load with SIGKILL, and looks whether anything that was flushed is lost.
 *
 *   npm run crash-loop -- --rounds 100              on a sparse file, and on a loop device if root
 *   npm run crash-loop -- --rounds 20 --seed 7 --store file   (or: device)
 *
 * SIGKILL takes what the process had in memory; what it had handed to the kernel stays. Cuts of the
 * power, which take that as well, are the simulator's part (npm run sim).
 */
import { mayMount } from '../test/support/mounted-vdisk.js';
import { runOnStores } from './crash-loop/arguments.js';
import { crashLoopOn } from './crash-loop/on-store.js';

if (!mayMount())
  console.log(
    'Not allowed to mount: no loop device as store, and no SQLite on a mounted file system.',
  );
await runOnStores('100', crashLoopOn);
