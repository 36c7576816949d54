/** Vdisks, snapshots, clones, splits and their attachments. */
import { fromHash, toHash, toVerification } from '../certificates.js';
import type { ControlPlane } from '../control-plane.js';
import type { InUse } from '../control-store.js';
import { isOwnName } from '../exports.js';
import type { Handlers } from '../handler.js';
import { ApiError } from '../problem.js';
import type { Vdisk } from '../schemas.js';
import { toPolicyChange } from '../split-options.js';
import { planSplit } from '../split-plan.js';

type VdiskHandlers = Pick<
  Handlers,
  | 'listVdisks'
  | 'createVdisk'
  | 'getVdisk'
  | 'changeVdisk'
  | 'deleteVdisk'
  | 'createExternal'
  | 'relocateExternal'
  | 'createSnapshots'
  | 'createClones'
  | 'splitVdisk'
  | 'changeSplit'
  | 'cancelSplit'
  | 'planSplit'
  | 'scanVdisk'
  | 'verifyVdisk'
  | 'hashVdisk'
  | 'attachVdisk'
  | 'detachVdisk'
  | 'listAttachments'
>;

export function vdiskHandlers(plane: ControlPlane): VdiskHandlers {
  const { store, exports, attachments, events } = plane;

  return {
    listVdisks: () => ({ vdisks: exports.vdisks().map((info) => plane.toVdisk(info)) }),

    createVdisk: async ({ body: { name, sizeBytes } }) => {
      checkNotOwn(name);
      await store.createVdisk(name, sizeBytes);
      const vdisk = plane.show(name);
      events.add('vdisk-created', vdisk);
      return vdisk;
    },

    getVdisk: ({ params: { name } }) => plane.show(name),

    changeVdisk: ({ params: { name }, body }) => changeVdisk(plane, name, body),

    deleteVdisk: async ({ params: { name }, query: { inUse = 'refuse' } }) => {
      checkNotOwn(name);
      await deleteVdisk(plane, name, inUse);
      return undefined;
    },

    createExternal: async ({ body: { name, path, ...options } }) => {
      checkNotOwn(name);
      await store.createExternal(name, path, options);
      const vdisk = plane.show(name);
      events.add('vdisk-created', vdisk);
      return vdisk;
    },

    relocateExternal: async ({ params: { name }, body: { path, ...options } }) => {
      checkNotOwn(name);
      await store.relocate(name, path, options);
      await store.lookAtExternal(name);
      const vdisk = plane.show(name);
      events.add('vdisk-changed', { ...vdisk, formerName: name });
      return vdisk;
    },

    createSnapshots: async ({ body: { items } }) => {
      for (const { vdisk } of items) checkNotOwn(vdisk);
      await store.snapshot(items);
      const vdisks = items.map(({ vdisk, snapshot }) => plane.show(`${vdisk}@${snapshot}`));
      for (const vdisk of vdisks) events.add('snapshot-created', vdisk);
      return { vdisks };
    },

    createClones: ({ body: { source, names } }) => createClones(plane, source, names),

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

    scanVdisk: async ({ params: { name } }) => {
      checkNotOwn(name);
      return { name, ...(await store.scan(name)) };
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

    attachVdisk: async ({ params: { name }, body }) => {
      checkNotOwn(name);
      const attachment = await attachments.attach(name, body);
      events.add('attached', attachment);
      return attachment;
    },

    detachVdisk: async ({ params: { name } }) => {
      await attachments.detach(name);
      events.add('detached', { vdisk: name });
      return undefined;
    },

    listAttachments: () => ({ attachments: attachments.list() }),
  };
}

/**
 * A vdisk goes with its snapshots if those who need them do not matter: no client may use either.
 */
async function deleteVdisk(plane: ControlPlane, name: string, inUse: InUse): Promise<void> {
  const { store, exports, attachments, events } = plane;
  const going = (): string[] => (inUse === 'refuse' ? [name] : [name, ...snapshotsOf(plane, name)]);
  let names: string[] = [];
  let act = async (): Promise<void> => {
    // A snapshot that was made a moment ago has had no time to get a client.
    names = going();
    await store.delete(name, { inUse });
  };
  for (const each of going()) {
    const inner = act;
    act = () => exports.alone(each, () => attachments.deleteWith(each, inner));
  }
  await act();
  for (const each of names) {
    exports.deleted(each);
    events.add('vdisk-deleted', { name: each });
  }
  if (inUse === 'split') plane.resumeSplits();
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

function snapshotsOf(plane: ControlPlane, name: string): string[] {
  const names = plane.store.list().map((each) => each.name);
  return names.filter((each) => each.startsWith(`${name}@`));
}

/** The size first: whoever knows the new name finds the new size. */
async function changeVdisk(
  plane: ControlPlane,
  name: string,
  change: { readonly name?: string; readonly sizeBytes?: number },
): Promise<Vdisk> {
  const { store, exports, attachments, events } = plane;
  checkNotOwn(name);
  plane.show(name);
  if (change.sizeBytes !== undefined) await store.resize(name, change.sizeBytes);
  if (change.name !== undefined) {
    const newName = change.name;
    checkNotOwn(newName);
    await attachments.renameWith(name, newName, () => store.rename(name, newName));
    exports.renamed(name, newName);
  }
  const vdisk = plane.show(change.name ?? name);
  events.add('vdisk-changed', { ...vdisk, formerName: name });
  return vdisk;
}

/** All or none: what was made before the one that failed is deleted again. */
async function createClones(
  plane: ControlPlane,
  source: string,
  names: readonly string[],
): Promise<{ vdisks: Vdisk[] }> {
  const { store, events } = plane;
  for (const name of names) checkNotOwn(name);
  const made: string[] = [];
  try {
    for (const name of names) {
      await store.clone(source, name);
      made.push(name);
    }
  } catch (error) {
    for (const name of made) await store.delete(name);
    throw error;
  }
  const vdisks = names.map((name) => plane.show(name));
  for (const vdisk of vdisks) events.add('clone-created', vdisk);
  return { vdisks };
}

/** @throws {ApiError} invalid for a name that only the server uses */
export function checkNotOwn(name: string): void {
  if (!isOwnName(name)) return;
  throw new ApiError('invalid', `${name.slice(0, 80)}: such names are the server's own`);
}
