/** Of every structure: each field has bytes of its own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STRUCTURES } from '../../test/support/layout-fields.js';

for (const { name, sizeBytes, fields } of STRUCTURES) {
  test(`${name}: no two fields share a byte`, () => {
    const owners = new Map<number, string>();
    for (const [field, changed] of fields) {
      assert.notEqual(changed.length, 0, `${field} is not written`);
      for (const at of changed) {
        assert.ok(at < sizeBytes, `${field} writes byte ${at} of ${sizeBytes}`);
        assert.equal(owners.get(at), undefined, `${field} and ${owners.get(at)} share byte ${at}`);
        owners.set(at, field);
      }
    }
  });
}
