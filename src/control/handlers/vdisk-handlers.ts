/** Vdisks, snapshots, clones, splits and their attachments. */
import type { ControlPlane } from '../control-plane.js';
import type { InUse } from '../control-store.js';
import { isOwnName } from '../exports.js';
import type { Handlers } from '../handler.js';
import { ApiError } from '../problem.js';
import type { Vdisk } from '../schemas.js';

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
  | 'scanVdisk'
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

    scanVdisk: async ({ params: { name } }) => {
      checkNotOwn(name);
      return { name, ...(await store.scan(name)) };
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
