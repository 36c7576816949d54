/** Publishing across two stores, with servers of their own, on directories. */
import { test } from 'node:test';
import { publishAcrossStores } from '../../test/support/published-story.js';

test('publish, clone, split with both servers killed, withdraw, delete: hashes hold', async () => {
  await publishAcrossStores((_, folder) => ({
    address: `dir:${folder}/objects`,
    named: /objects\/store$/,
  }));
});
