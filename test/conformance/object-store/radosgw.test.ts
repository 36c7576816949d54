/**
 * Against a real Ceph with two S3 gateways, started once for the whole file: the contract of an
 * object store, the probe, and the server on it while gateways and servers die.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { isStoreError } from '../../../src/base/store-error.js';
import { seededRandom } from '../../../src/env/seeded-random.js';
import { bucketTrouble } from '../../../src/objects/bucket-rules.js';
import { probeObjectStore } from '../../../src/objects/probe.js';
import { objectStoreContract } from '../../contract/object-store.js';
import { publishAcrossStores } from '../../support/published-story.js';
import { RealCeph } from '../../support/real-ceph.js';
import { newBucket, testS3 } from '../../support/s3-client.js';
import { mainJobOn } from './main-job-on-s3.js';
import { ServerScene } from './server-scene.js';
import { splitUnderKills } from './split-under-kills.js';

const EXIT_DEPOSED = 14;

let ceph: RealCeph;
let buckets = 0;

const bucketName = (): string => `keiki-test-${++buckets}`;

// In one suite: its hook ends the daemons, which keep this process.
describe('a real Ceph', () => {
  before(async () => {
    ceph = await RealCeph.start();
  });
  after(() => ceph.stop());

  objectStoreContract('S3, over two gateways of a real Ceph', async () => {
    const { endpoints } = ceph;
    const bucket = bucketName();
    const objects = await newBucket({ endpoints, bucket });
    const others: { close(): void }[] = [];
    return {
      objects,
      anotherClient: () => {
        const other = testS3({ endpoints, bucket });
        others.push(other);
        return other;
      },
      settle: (promise) => promise,
      end: () => {
        for (const each of [objects, ...others]) each.close();
        return Promise.resolve();
      },
    };
  });

  describe('the probe, on a real Ceph', () => {
    test('passes over both gateways, and leaves nothing', async () => {
      const store = await newBucket({ endpoints: ceph.endpoints, bucket: bucketName() });
      const ways = store.throughEach({ patienceMs: 1000 });
      assert.equal(ways.length, 2);
      await probeObjectStore({ prefix: 'a/b', random: seededRandom(2), ways });
      assert.deepEqual(await store.list(''), []);
      assert.equal(await bucketTrouble(store, 'a/b'), undefined);
      store.close();
    });

    test('a bucket with versioning is refused, or with a rule that deletes', async () => {
      const store = await newBucket({ endpoints: ceph.endpoints, bucket: bucketName() });
      const rule = (prefix: string): Buffer =>
        Buffer.from(
          '<LifecycleConfiguration><Rule><ID>old</ID><Status>Enabled</Status>' +
            `<Filter><Prefix>${prefix}</Prefix></Filter>` +
            '<Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>',
        );
      await store.askBucket('PUT', { lifecycle: '' }, [200], rule('other/'));
      assert.equal(await bucketTrouble(store, 'a/b'), undefined);
      for (const prefix of ['a/', 'a/b/log/', '']) {
        await store.askBucket('PUT', { lifecycle: '' }, [200], rule(prefix));
        assert.match((await bucketTrouble(store, 'a/b')) ?? '', /lifecycle rule "old"/);
      }
      await store.askBucket('DELETE', { lifecycle: '' }, [204]);
      assert.equal(await bucketTrouble(store, 'a/b'), undefined);
      const versions =
        '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>';
      await store.askBucket('PUT', { versioning: '' }, [200], Buffer.from(versions));
      assert.match((await bucketTrouble(store, 'a/b')) ?? '', /versioning is enabled/);
      store.close();
    });
  });

  describe('what a real Ceph says, in our words', () => {
    test('a bucket that is not there, and keys that are not known', async () => {
      const { endpoints } = ceph;
      const nowhere = testS3({ endpoints, bucket: 'keiki-not-made' });
      const isMissing = (error: unknown): boolean =>
        isStoreError(error, 'not-found') &&
        /s3:\/\/keiki-not-made: .* 404 NoSuchBucket, request id \S+ at .*: make the bucket/.test(
          error.message,
        );
      await assert.rejects(nowhere.get('k'), isMissing);
      await assert.rejects(nowhere.putNew('k', []), isMissing);
      await assert.rejects(nowhere.list(''), isMissing);
      await assert.rejects(nowhere.delete(['a', 'b']), isMissing);
      nowhere.close();
    });
  });

  describe('the server on a real Ceph, while fio writes', () => {
    let scene: ServerScene;
    before(async () => {
      scene = await ServerScene.make(ceph, bucketName());
      await scene.start();
    });
    after(() => scene.close());

    test('a gateway in use is killed', async () => {
      const writing = scene.write(await scene.newDisk(), 1);
      await scene.isInTheMiddle(writing);
      await ceph.gateways[0]?.kill();
      await scene.expectVerified(writing);
    });

    test('the server is killed, and starts with the gateway that is left', async () => {
      const writing = scene.write(await scene.newDisk(), 2);
      await scene.isInTheMiddle(writing);
      assert.equal(await scene.lab.last.kill('SIGKILL'), 'SIGKILL');
      await scene.start();
      assert.match(scene.lab.last.log, /endpoint-left-out/);
      await scene.expectVerified(writing);
      ceph.gateways[0]?.start();
      await ceph.gatewayIsUp(0);
    });

    test('the OSD is killed, and started again: nobody notices but by waiting', async () => {
      const writing = scene.write(await scene.newDisk(), 3);
      await scene.isInTheMiddle(writing);
      await ceph.osd.kill();
      const server = scene.lab.last;
      await scene.waitsForStore();
      ceph.osd.start();
      await scene.expectVerified(writing);
      assert.equal(server.process.exitCode, null);
    });

    test('another server takes over: the first ends with 14, and fio goes on at the other', async () => {
      const writing = scene.write(await scene.newDisk(), 4);
      await scene.isInTheMiddle(writing);
      const first = scene.lab.last;
      const second = scene.spawn('second', '--take-over');
      await second.logged(/ready: /);
      scene.makeCurrent('second');
      assert.equal(await first.ended, EXIT_DEPOSED, first.log);
      assert.match(first.log, /another server has taken this store over/);
      await scene.expectVerified(writing);
    });

    test('a clone is made, and the server killed; it is split, and gateway and server are killed', async () => {
      await splitUnderKills(scene);
    });

    test('in the end the store is sound', async () => {
      await scene.lab.stop();
      await scene.check();
    });
  });

  test('a snapshot that is published, cloned by another store, and split; both servers are killed', async () => {
    const bucket = bucketName();
    (await newBucket({ endpoints: ceph.endpoints, bucket })).close();
    const args = ceph.endpoints.flatMap((url) => ['--s3-endpoint', url]);
    const { environment } = ceph;
    await publishAcrossStores((which) => ({
      address: `s3://${bucket}/${which}`,
      args,
      environment,
      named: new RegExp(`${bucket}/[0-9a-f]{4}/shop$`),
    }));
  });

  test('the main job of the README, with --store s3://...', async () => {
    await mainJobOn(ceph, bucketName());
  });
});
