/**
 * The objects of published snapshots, below the prefix of the store that publishes:
 *
 *   pub/<name>/<id>/records          the records that are kept for it
 *   pub/<name>/<id>/manifest         where its trees are
 *   pub/<name>/<id>/ready            it may be read: put when the store has it in its chain
 *   pub/<name>/<id>/pin/<holder>     somebody reads through it
 *   pub/<name>/<id>/closing/<try>    it is being withdrawn
 *   withdrawn/<id>                   it was withdrawn; never deleted
 *
 * 1. A reader puts its pin, and then looks for a try to withdraw; who withdraws puts its try, and
 *    then looks for pins. So one of the two sees the other, whatever comes between.
 * 2. Everything else of a publication is deleted only when `withdrawn/<id>` is there. A reader that
 *    finds no try, then no withdrawal, then `ready`, in this order, so has a pin that counts.
 * 3. An id is drawn at random and never used twice.
 */
import { StoreError } from '../../../base/store-error.js';
import { AmbiguousPutError, type ObjectStore } from '../../../env/object-store.js';
import { decodeManifest, type Manifest } from '../../../layout/publication.js';
import { getPatiently, listAll } from '../chain-walk.js';

/** A store in an object store. */
export interface StorePrefix {
  readonly objects: ObjectStore;
  readonly prefix: string;
}

export interface PublicationKey {
  /** `golden@v1`: what it is published as. */
  readonly name: string;
  readonly id: number;
}

/** An object of a publication. */
export interface PublicationObject extends PublicationKey {
  readonly key: string;
  /** `ready`, `pin/…` */
  readonly part: string;
}

export function idText(id: number): string {
  return id.toString(16).padStart(8, '0');
}

export function partKey(prefix: string, { name, id }: PublicationKey, part: string): string {
  return `${prefix}/pub/${name}/${idText(id)}/${part}`;
}

function withdrawnKey(prefix: string, id: number): string {
  return `${prefix}/withdrawn/${idText(id)}`;
}

/** All objects of publications, or those of one name. */
export async function listPublished(
  { objects, prefix }: StorePrefix,
  name?: string,
): Promise<PublicationObject[]> {
  const found: PublicationObject[] = [];
  const start = `${prefix}/pub/`;
  for (const key of await listAll(objects, name === undefined ? start : `${start}${name}/`)) {
    const [, of, id, part] = /^([^/]+)\/([0-9a-f]{8})\/(.+)$/.exec(key.slice(start.length)) ?? [];
    if (of === undefined || id === undefined || part === undefined) continue;
    found.push({ key, name: of, id: Number.parseInt(id, 16), part });
  }
  return found;
}

/** The pins of a publication, or the tries to withdraw it. */
export function listParts(
  { objects, prefix }: StorePrefix,
  publication: PublicationKey,
  folder: 'pin' | 'closing',
): Promise<string[]> {
  return listAll(objects, partKey(prefix, publication, `${folder}/`));
}

export async function putReady(place: StorePrefix, publication: PublicationKey): Promise<void> {
  await putBytes(place.objects, partKey(place.prefix, publication, 'ready'), text('ready\n'));
}

export async function putWithdrawn({ objects, prefix }: StorePrefix, id: number): Promise<void> {
  await putBytes(objects, withdrawnKey(prefix, id), text('withdrawn\n'));
}

/** True if nobody has ever used the id. */
export async function isFreeId({ objects, prefix }: StorePrefix, id: number): Promise<boolean> {
  return (await getPatiently(objects, withdrawnKey(prefix, id))) === undefined;
}

/** Asked by a reader whose pin is there: may it rely on it? */
export async function isPublished(
  place: StorePrefix,
  publication: PublicationKey,
): Promise<boolean> {
  const { objects, prefix } = place;
  if ((await listParts(place, publication, 'closing')).length > 0) return false;
  if ((await getPatiently(objects, withdrawnKey(prefix, publication.id))) !== undefined) {
    return false;
  }
  const ready = await getPatiently(objects, partKey(prefix, publication, 'ready'));
  return ready !== undefined;
}

/** @throws {StoreError} not-found, corrupt, device */
export async function readManifest(
  { objects, prefix }: StorePrefix,
  publication: PublicationKey,
): Promise<{ readonly manifest: Manifest; readonly bytes: Uint8Array }> {
  const key = partKey(prefix, publication, 'manifest');
  const bytes = await getPatiently(objects, key);
  if (bytes === undefined) {
    throw new StoreError('not-found', `${objects.name}: ${key} is missing: it was withdrawn`);
  }
  const manifest = decodeManifest(bytes);
  if (manifest !== undefined && manifest.name === publication.name) return { manifest, bytes };
  throw new StoreError('corrupt', `${objects.name}: ${key} is damaged`);
}

/** Who reads through a publication: the content of a pin. */
export interface PinHolder {
  /** Where the store is, for people. */
  readonly store: string;
  /** What it calls the snapshot. */
  readonly name: string;
}

export function pinText({ store, name }: PinHolder): Uint8Array {
  return text(`store ${encodeURIComponent(store)}\nname ${encodeURIComponent(name)}\n`);
}

/** Undefined if it was taken away meanwhile. What cannot be read is a pin all the same. */
export async function readPin(
  { objects }: StorePrefix,
  key: string,
): Promise<PinHolder | undefined> {
  const bytes = await getPatiently(objects, key);
  if (bytes === undefined) return undefined;
  const [, store, name] = /^store (\S+)\nname (\S+)\n$/.exec(new TextDecoder().decode(bytes)) ?? [];
  if (store === undefined || name === undefined) return { store: key, name: '' };
  try {
    return { store: decodeURIComponent(store), name: decodeURIComponent(name) };
  } catch {
    return { store: key, name: '' };
  }
}

/**
 * Creates the object; if it is there already, it has to hold the same bytes.
 * @throws {StoreError} exists: it holds others; device
 */
export async function putBytes(
  objects: ObjectStore,
  key: string,
  bytes: Uint8Array,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      if ((await objects.putNew(key, [bytes])) === 'created') return;
    } catch (error) {
      if (!(error instanceof AmbiguousPutError)) throw error;
    }
    const there = await getPatiently(objects, key);
    if (there !== undefined) {
      if (Buffer.compare(there, bytes) === 0) return;
      throw new StoreError('exists', `${objects.name}: ${key} holds something else`);
    }
    if (attempt < PUT_TRIES_MAX) continue;
    throw new StoreError('device', `${objects.name}: no answer to the put of ${key}; try again`);
  }
}

const PUT_TRIES_MAX = 10;

function text(line: string): Uint8Array {
  return new TextEncoder().encode(line);
}
