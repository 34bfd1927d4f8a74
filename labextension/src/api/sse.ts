/** One event of a stream (WHATWG HTML, section 9.2.6). */
export interface IServerEvent {
  id: string;
  type: string;
  data: string;
}

/** Turns the pieces of a text/event-stream body into events, wherever it was cut. */
export class EventParser {
  /** The last number that was told, with an event or by itself: what to resume after. */
  lastId = '';

  /** The events that `piece` completes; a comment gives none. */
  push(piece: string): IServerEvent[] {
    this._rest += piece;
    const lines = this._rest.split(/\r\n|\n|\r(?!$)/);
    this._rest = lines.pop() ?? '';
    const found: IServerEvent[] = [];
    for (const line of lines) {
      if (line !== '') {
        this._field(line);
      } else {
        this.lastId = this._id;
        if (this._data.length) {
          found.push({ id: this._id, type: this._type || 'message', data: this._data.join('\n') });
        }
        this._clear();
      }
    }
    return found;
  }

  private _field(line: string): void {
    const colon = line.indexOf(':');
    if (colon === 0) {
      return;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'id') {
      this._id = value;
    } else if (name === 'event') {
      this._type = value;
    } else if (name === 'data') {
      this._data.push(value);
    }
  }

  private _clear(): void {
    this._type = '';
    this._data = [];
  }

  private _rest = '';
  private _id = '';
  private _type = '';
  private _data: string[] = [];
}
