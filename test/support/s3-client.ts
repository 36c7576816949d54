/** Clients of a real or a lying S3 for tests, with buckets of their own. */
import { seededRandom } from '../../src/env/seeded-random.js';
import { systemClock } from '../../src/env/system-clock.js';
import { openS3 } from '../../src/objects/open-s3.js';
import type { S3ObjectStore } from '../../src/objects/s3-object-store.js';
import { CEPH_KEYS } from './real-ceph.js';

export interface TestS3Options {
  readonly endpoints: readonly string[];
  readonly bucket: string;
  readonly deadlineMs?: number;
  readonly patienceMs?: number;
  readonly requests?: number;
}

export function testS3(options: TestS3Options): S3ObjectStore {
  return openS3({
    region: undefined,
    addressing: 'auto',
    requests: 8,
    deadlineMs: 10_000,
    patienceMs: 10_000,
    clock: systemClock,
    random: seededRandom(1),
    credentials: () => Promise.resolve(CEPH_KEYS),
    ...options,
  });
}

/** A client of a bucket that is made for it. */
export async function newBucket(options: TestS3Options): Promise<S3ObjectStore> {
  const store = testS3(options);
  await store.askBucket('PUT', {}, [200]);
  return store;
}
