import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BUCKET_MS, Histogram } from './histogram.js';

test('every bound counts as its own bucket, and what is beyond it in the next', () => {
  for (const [index, bound] of BUCKET_MS.entries()) {
    const histogram = new Histogram();
    histogram.add(bound);
    assert.equal(histogram.cumulative()[index], 1, `${bound}`);
    if (index > 0) assert.equal(histogram.cumulative()[index - 1], 0, `${bound}`);
    histogram.add(bound * 1.001);
    assert.equal(histogram.cumulative()[index], 1, `${bound}`);
    assert.equal(histogram.cumulative()[index + 1] ?? 2, 2, `${bound}`);
  }
});

test('extremes are counted, and quantiles are bounds that hold', () => {
  const histogram = new Histogram();
  assert.equal(histogram.quantileMs(0.5), undefined);
  for (const ms of [0, 0, 1e-9, 1e12]) histogram.add(ms);
  assert.equal(histogram.count, 4);
  assert.equal(histogram.quantileMs(0.5), BUCKET_MS[0]);
  assert.equal(histogram.quantileMs(1), BUCKET_MS.at(-1));
  const even = new Histogram();
  for (let ms = 1; ms <= 1000; ms++) even.add(ms);
  for (const fraction of [0.01, 0.5, 0.9, 0.99]) {
    const exact = fraction * 1000;
    const bound = even.quantileMs(fraction) ?? 0;
    assert.ok(bound >= exact && bound < 2.1 * exact + 0.1, `${fraction}: ${bound}`);
  }
  assert.equal(even.sumMs, 500_500);
});
