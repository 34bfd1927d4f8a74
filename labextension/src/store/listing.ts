import type { Api, IListings, Kind } from '../api/client';

/** One kind of thing, as far as it was loaded; the rest follows when somebody scrolls to it. */
export interface IListing<T> {
  items: readonly T[];
  cursor: string | null;
  state: 'loading' | 'ready' | 'error';
  error: string;
}

/** Runs are large, as each carries its plan and its report. */
const PAGE: Record<Kind, number> = { runs: 40, models: 200, deployments: 200, federations: 200 };

export function unloaded<T>(): IListing<T> {
  return { items: [], cursor: null, state: 'loading', error: '' };
}

type Named = { name: string };

function created(item: unknown): string {
  return (item as { created_at: string }).created_at;
}

/** Loads one kind and keeps it up to date, one request of a sort at a time. */
export class ListingLoader<K extends Kind> {
  listing: IListing<IListings[K]> = unloaded();

  constructor(
    private _api: Api,
    private _kind: K,
    private _changed: () => void
  ) {}

  /** Loads the first page anew; what is shown stays until it is there. */
  async reload(search: string): Promise<void> {
    const ticket = ++this._ticket;
    this._search = search;
    try {
      const page = await this._page(null);
      if (ticket === this._ticket) {
        this._set({ items: page.items, cursor: page.next_cursor, state: 'ready', error: '' });
      }
    } catch (error) {
      if (ticket === this._ticket) {
        this._set({ ...this.listing, state: 'error', error: (error as Error).message });
        throw error;
      }
    }
  }

  /** Adds the next page, if there is one. */
  async more(): Promise<void> {
    const { cursor, items } = this.listing;
    if (cursor === null || this._loadingMore === cursor) {
      return;
    }
    const ticket = this._ticket;
    this._loadingMore = cursor;
    try {
      const page = await this._page(cursor);
      if (ticket === this._ticket) {
        const known = new Set(items.map(item => (item as Named).name));
        const fresh = page.items.filter(item => !known.has((item as Named).name));
        const all = [...this.listing.items, ...fresh];
        this._set({ items: all, cursor: page.next_cursor, state: 'ready', error: '' });
      }
    } catch (error) {
      if (ticket === this._ticket) {
        this._set({ ...this.listing, state: 'error', error: (error as Error).message });
      }
    } finally {
      this._loadingMore = null;
    }
  }

  /** Takes in what is known to be newer: in its place, or as the newest. */
  put(item: IListings[K]): void {
    const name = (item as Named).name;
    if (this._search && !name.toLowerCase().includes(this._search.toLowerCase())) {
      return;
    }
    const items = [...this.listing.items];
    const place = items.findIndex(other => (other as Named).name === name);
    if (place >= 0) {
      items[place] = item;
    } else {
      // Newest first, as the platform lists them; what is older than the loaded pages waits.
      const older = items.findIndex(other => created(other) < created(item));
      if (older < 0 && this.listing.cursor !== null) {
        return;
      }
      items.splice(older < 0 ? items.length : older, 0, item);
    }
    this._set({ ...this.listing, items });
  }

  find(name: string): IListings[K] | undefined {
    return this.listing.items.find(item => (item as Named).name === name);
  }

  private _page(cursor: string | null) {
    return this._api.list(this._kind, { limit: PAGE[this._kind], cursor, search: this._search });
  }

  private _set(listing: IListing<IListings[K]>): void {
    this.listing = listing;
    this._changed();
  }

  private _ticket = 0;
  private _search = '';
  private _loadingMore: string | null = null;
}
