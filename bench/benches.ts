/** All benches, in the order of docs/BENCHMARKS.md. */
import { actCost } from './benches/act-cost.js';
import { clones10k } from './benches/clones-10k.js';
import { depth } from './benches/depth.js';
import { flush } from './benches/flush.js';
import { nbdConnections } from './benches/nbd-connections.js';
import { nbdSpeed } from './benches/nbd-speed.js';
import { objectStore } from './benches/object-store.js';
import { randomRead, randomWrite } from './benches/random.js';
import { recovery, recoverySingle } from './benches/recovery.js';
import { sequential } from './benches/sequential.js';
import { shareWhole } from './benches/share-whole.js';
import { split } from './benches/split.js';
import { splitBesideQemu } from './benches/split-beside-qemu.js';
import { splitSiblings } from './benches/split-siblings.js';
import type { Bench } from './harness/bench.js';

export const BENCHES: readonly Bench[] = [
  actCost,
  clones10k,
  randomRead,
  randomWrite,
  flush,
  sequential,
  split,
  shareWhole,
  splitBesideQemu,
  splitSiblings,
  depth,
  recovery,
  recoverySingle,
  nbdSpeed,
  nbdConnections,
  objectStore,
];
