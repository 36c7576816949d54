/** Room that is not for everybody. */
import type { Urgency } from '../medium.js';

/** Blocks that are kept from each, for those who give more back. */
export const SLOP_BLOCKS: Record<Urgency, number> = {
  client: 256,
  overwrite: 128,
  trim: 96,
  merge: 64,
  release: 0,
};
