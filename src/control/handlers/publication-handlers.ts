/** Snapshots that other stores may read. */
import type { ControlPlane } from '../control-plane.js';
import type { StorePublication } from '../control-store.js';
import type { Publication } from '../external-schemas.js';
import type { Handlers } from '../handler.js';
import { checkNotOwn } from './vdisk-handlers.js';

type PublicationHandlers = Pick<
  Handlers,
  'publishSnapshot' | 'unpublishSnapshot' | 'listPublications'
>;

export function publicationHandlers(plane: ControlPlane): PublicationHandlers {
  const { store, events } = plane;
  const { storePath } = plane.options;
  const toPublication = ({ holders, ...publication }: StorePublication): Publication => ({
    ...publication,
    address: `${storePath}#${publication.publishedAs}`,
    holders: [...holders],
  });

  return {
    publishSnapshot: async ({ params: { name } }) => {
      checkNotOwn(name);
      await store.publish(name);
      const vdisk = plane.show(name);
      events.add('vdisk-changed', { ...vdisk, formerName: name });
      return vdisk;
    },

    unpublishSnapshot: async ({ params: { name }, query: { dropHolders } }) => {
      checkNotOwn(name);
      await store.unpublish(name, { dropHolders: dropHolders === 'true' });
      const vdisk = plane.show(name);
      events.add('vdisk-changed', { ...vdisk, formerName: name });
      return vdisk;
    },

    listPublications: async () => ({
      publications: (await store.publications()).map(toPublication),
    }),
  };
}
