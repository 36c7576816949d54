/** Splits: begun, planned, changed, cancelled, and proven. */
import { fromHash, toHash, toVerification } from '../certificates.js';
import type { ControlPlane } from '../control-plane.js';
import type { Handlers } from '../handler.js';
import { ApiError } from '../problem.js';
import { toPolicyChange } from '../split-options.js';
import { planSplit } from '../split-plan.js';

import { checkNotOwn } from './vdisk-handlers.js';

type SplitHandlers = Pick<
  Handlers,
  'splitVdisk' | 'changeSplit' | 'cancelSplit' | 'planSplit' | 'verifyVdisk' | 'hashVdisk'
>;

export function splitHandlers(plane: ControlPlane): SplitHandlers {
  const { store, events } = plane;

  return {
    splitVdisk: ({ params: { name }, body: { mode, ...options } }) => {
      checkNotOwn(name);
      return plane.startSplit(name, { mode, ...toPolicyChange(options) });
    },

    changeSplit: async ({ params: { name }, body: { mode, isPaused, ...options } }) => {
      checkNotOwn(name);
      const change = toPolicyChange(options);
      if (mode !== undefined) await store.changeSplit(name, { mode, ...change });
      else if (Object.keys(change).length > 0) await store.changeSplit(name, change);
      if (isPaused === true) await store.pauseSplit(name);
      if (isPaused === false) await store.resumeSplit(name);
      const vdisk = plane.show(name);
      events.add('vdisk-changed', { ...vdisk, formerName: name });
      return vdisk;
    },

    cancelSplit: async ({ params: { name }, query: { undo } }) => {
      checkNotOwn(name);
      return plane.cancelSplit(name, undo === 'true');
    },

    planSplit: ({ params: { name }, query, signal }) => {
      checkNotOwn(name);
      return planSplit(store, name, query, signal);
    },

    verifyVdisk: async ({ params: { name }, body: { contentHash }, signal }) => {
      checkNotOwn(name);
      const hash = contentHash === undefined ? {} : { contentHash: fromHash(contentHash) };
      const verify = () => store.verify(name, { ...hash, signal });
      const verification = toVerification(name, await whileWanted(signal, name, verify));
      events.add('vdisk-verified', verification);
      return verification;
    },

    hashVdisk: async ({ params: { name }, signal }) => {
      checkNotOwn(name);
      const { sizeBytes } = store.show(name);
      const hash = () => store.contentHash(name, { signal });
      return { name, sizeBytes, contentHash: toHash(await whileWanted(signal, name, hash)) };
    },
  };
}

/** @throws {ApiError} cancelled: nobody waits for it any more */
async function whileWanted<T>(
  signal: AbortSignal,
  name: string,
  act: () => Promise<T>,
): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new ApiError('cancelled', `${name} was being read: its client is gone`);
  }
}
