/**
 * Kills a server with SIGKILL in the middle of splits of live vdisks, and looks whether each goes
 * on by itself, does nothing twice that was durable, is proven, and gives all space back.
 *
 *   npm run split-kills -- --rounds 50              on a sparse file, and on a loop device if root
 *   npm run split-kills -- --rounds 50 --seed 7 --store file   (or: device)
 */
import { MIB } from '../src/base/units.js';
import { runOnStores } from './crash-loop/arguments.js';
import { splitKillsOn } from './split-kills/on-store.js';

const GOLDEN_BYTES = 256 * MIB;

await runOnStores('50', (options) => splitKillsOn({ ...options, goldenBytes: GOLDEN_BYTES }));
