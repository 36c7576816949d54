/** Statistics of a store on an object store, as the API shows them. */
import { type Static, Type } from 'typebox';
import { bytes, count, nullable } from './schema-kit.js';

const ratio = (description: string) => nullable(Type.Number({ minimum: 0, description }));
const price = (description: string) => Type.Number({ minimum: 0, description });

const Verb = Type.Object({
  count: count('Since the server started; what was sent again counts once'),
  errors: count('Of these, how many failed'),
  bytes: bytes('Of objects'),
});
const Cost = Type.Object({
  requests: price('PUT, LIST and GET'),
  egress: price('What was read'),
  storage: price('What is kept'),
  total: price('All of it'),
});

export const ObjectStats = Type.Object({
  requests: Type.Object({ put: Verb, get: Verb, delete: Verb, list: Verb }),
  unknownPuts: count('PUTs whose outcome had to be read'),
  retries: count('Requests that were sent again'),
  records: count('With something live, as of the last consistency point but one'),
  liveBytes: bytes('That something names, in these records'),
  keptBytes: bytes('All of these records'),
  liveRatio: ratio('Live of kept; null: nothing is kept, or the cleaner is off'),
  placedBytes: bytes('Data that clients and splits wrote'),
  writeAmplification: ratio('Bytes put for each of these; null: nothing was written'),
  cleaner: Type.Object({
    passes: count('In which it had something to do'),
    recordsEmptied: count('Records whose live blocks it dirtied'),
    recordsLeft: count('Times that a record could not be emptied'),
    dataBlocksMoved: count('Data blocks that it placed anew'),
    metaBlocksMoved: count('Blocks of metadata that it dirtied'),
    bytesRead: bytes('For that'),
  }),
  cache: Type.Object({
    memoryHits: count('Blocks that had been read ahead'),
    fileHits: count('Blocks that the cache file had'),
    misses: count('Blocks that the object store was asked for'),
    memoryBytes: bytes('Read ahead, and not read yet'),
    fileBytes: bytes('In the cache file'),
    fileBytesMax: bytes('What it can hold; 0: there is none'),
    damaged: count('Blocks that were damaged in the cache file, and read again'),
  }),
  orphans: Type.Object({
    sweeps: count('Looks for objects that nothing names'),
    deleted: count('Objects that were'),
  }),
  cost: nullable(
    Type.Object(
      { sinceStart: Cost, month: Cost },
      {
        description:
          'By the prices of the settings, in their currency; month: if all goes on as in the ' +
          'last hour. null: no price is given',
      },
    ),
  ),
});

export type ObjectStats = Static<typeof ObjectStats>;
