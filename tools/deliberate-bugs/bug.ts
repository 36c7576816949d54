/** What a deliberate bug is, and the words that the lists of them share. */
import type { MediumKind } from '../../sim/machine.js';

export interface Patch {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** A run that fails when the bug is there. */
export type Catcher =
  /** The test of this name. */
  | { readonly kind: 'test'; readonly file: string; readonly name: string }
  /** One of the first random runs of the simulator, with these words. */
  | { readonly kind: 'seeds'; readonly medium: MediumKind; readonly says: RegExp }
  /** A run of the simulator that flips bits. */
  | { readonly kind: 'rot'; readonly medium: MediumKind; readonly says: RegExp }
  /** One of the first random runs of three servers on one object store. */
  | { readonly kind: 'servers'; readonly says: RegExp };

export interface DeliberateBug {
  readonly name: string;
  /** What the code does wrong. */
  readonly what: string;
  readonly patches: readonly Patch[];
  readonly caughtBy: readonly Catcher[];
}

/** In whatever words: a run from a seed may meet a bug in several ways. */
export const NOTICED = /^(Violation|InvariantError|StoreError): /;
export const READS_WRONG = /: sector \d+ \(block \d+\) reads as /;

export const test = (file: string, name: string): Catcher => ({ kind: 'test', file, name });
export const seeds = (medium: MediumKind, says: RegExp): Catcher => ({
  kind: 'seeds',
  medium,
  says,
});
export const rot = (medium: MediumKind, says: RegExp): Catcher => ({ kind: 'rot', medium, says });
export const servers = (says: RegExp): Catcher => ({ kind: 'servers', says });

export const WHOLES = 'src/split/share-whole.fuzz.ts';
export const FIFTEEN = 'src/split/fifteen-ways.test.ts';
export const FILL = 'src/split/fill.ts';
export const SPLIT_JOBS = 'src/split/split-jobs.ts';
export const CERTIFY = 'src/split/certificate/certify.ts';
export const WRITER = 'src/vdisk/writer.ts';
export const ACTS = 'src/vdisk/acts.ts';
export const RECOVERY = 'src/store/recovery.ts';
export const LOADER = 'src/store/block-loader.ts';
export const ENGINE = 'src/store/engine.ts';
export const IN_PLACE = 'src/store/in-place/in-place-medium.ts';
export const OBJECT_LOG = 'src/store/object-log/object-log-medium.ts';
export const TAKE_OVER = 'src/store/object-log/take-over.ts';
export const CLAIMANT = 'src/store/object-log/claimant.ts';
export const RENEWAL = 'src/store/object-log/cleaner/data-renewal.ts';
export const ON_THE_WAY = 'src/main/changed-on-the-way.test.ts';
