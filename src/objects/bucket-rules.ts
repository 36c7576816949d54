/**
 * Settings of a bucket that would work against a store in it: versioning keeps what is deleted, a
 * lifecycle rule deletes what is needed.
 *
 * Source: Amazon S3 API Reference: GetBucketVersioning, GetBucketLifecycleConfiguration
 */
import type { HttpAnswer } from './http-exchange.js';
import type { S3ObjectStore } from './s3-object-store.js';
import { elements, elementText } from './s3-xml.js';

/** Of a store that does not know such a setting: 501, and 405 of some. */
const ANSWERS = [200, 404, 405, 501];

/**
 * What speaks against it; undefined if nothing does.
 * @param prefix  of the keys that will be in use
 * @throws {StoreError} invalid: it may not be asked; device
 */
export async function bucketTrouble(
  store: S3ObjectStore,
  prefix: string,
): Promise<string | undefined> {
  const versioning = textOf(await store.askBucket('GET', { versioning: '' }, ANSWERS));
  const status = elementText(versioning, 'Status');
  if (status !== undefined) {
    return (
      `its versioning is ${status.toLowerCase()}: what is deleted would stay, and be paid for; ` +
      'use a bucket that never had it'
    );
  }
  const lifecycle = textOf(await store.askBucket('GET', { lifecycle: '' }, ANSWERS));
  const rule = elements(lifecycle, 'Rule').find((each) => isDangerous(each, prefix));
  if (rule === undefined) return undefined;
  const id = elementText(rule, 'ID') ?? 'without a name';
  return (
    `its lifecycle rule "${id}" deletes or moves objects of this store: take ${prefix}/ out of ` +
    'the rule, or the rule away'
  );
}

function textOf({ status, body }: HttpAnswer): string {
  return status === 200 ? new TextDecoder().decode(body) : '';
}

/** Rules that end multipart uploads, or old versions, do no harm: there are none. */
function isDangerous(rule: string, prefix: string): boolean {
  if (elementText(rule, 'Status') !== 'Enabled') return false;
  if (!/<(Expiration|Transition)[\s>]/.test(rule)) return false;
  const covered = elementText(rule, 'Prefix') ?? '';
  return prefix.startsWith(covered) || covered.startsWith(prefix);
}
