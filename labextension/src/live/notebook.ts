import type { ICodeCellModel } from '@jupyterlab/cells';
import type { IDisplayData, IOutput } from '@jupyterlab/nbformat';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { KernelMessage } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';

import { IMarks, marksOf, STOP_TYPE } from './marks';

type Context = NotebookPanel['context'];

/** A cell that is executed, though not by this page. */
interface IFollowedCell {
  cell: ICodeCellModel;
  count: number;
  /** Whether what it prints besides is shown as well. */
  whole: boolean;
  onOutputs(sender: unknown, change: { type: string }): void;
}

const OURS = 'truststram-';
const GONE = ['restarting', 'autorestarting', 'terminating', 'dead'];

/**
 * Shows live cards whose cell this page did not start: it was loaded again meanwhile, or is
 * another tab on the same notebook. JupyterLab itself drops the outputs of such cells.
 */
export class LiveNotebook {
  constructor(private _context: Context) {
    const { sessionContext } = _context;
    sessionContext.iopubMessage.connect(this._onMessage, this);
    sessionContext.statusChanged.connect(this._onStatus, this);
    _context.disposed.connect(() => Signal.clearData(this));
  }

  private _onMessage(_: unknown, sent: KernelMessage.IMessage): void {
    const message = sent as KernelMessage.IIOPubMessage;
    if (this._context.isReady) {
      this._take(message);
    } else {
      // The kernel is there before the file is read; nothing that it says is lost meanwhile.
      void this._context.ready.then(() => this._take(message));
    }
  }

  private _take(message: KernelMessage.IIOPubMessage): void {
    const parent = message.parent_header as Partial<KernelMessage.IHeader>;
    const kernel = this._context.sessionContext.session?.kernel;
    // Pages that share a document bring outputs to each other.
    if (!kernel || this._context.isDisposed || this._context.model.collaborative) {
      return;
    }
    const mine = parent.session === kernel.clientId;
    if (KernelMessage.isDisplayDataMsg(message) || KernelMessage.isUpdateDisplayDataMsg(message)) {
      const id = message.content.transient?.display_id;
      if (typeof id === 'string' && id.startsWith(OURS)) {
        this._show(id, message, mine);
        return;
      }
    }
    if (!mine && parent.msg_id) {
      this._follow(parent.msg_id, message);
    }
  }

  private _show(
    id: string,
    message: KernelMessage.IDisplayDataMsg | KernelMessage.IUpdateDisplayDataMsg,
    mine: boolean
  ): void {
    const begins = KernelMessage.isDisplayDataMsg(message);
    if (mine && begins) {
      // From here on JupyterLab finds the output by itself, whoever updates it.
      this._own.add(id);
    }
    if (this._own.has(id)) {
      return;
    }
    const { data, metadata } = message.content;
    const output: IDisplayData = { output_type: 'display_data', data, metadata };
    const marks = marksOf(metadata);
    const execution = (message.parent_header as KernelMessage.IHeader).msg_id;
    this._keepingClean(execution, () => {
      const cell = this._replace(id, output) ?? this._add(id, output, marks, begins, execution);
      if (cell && marks?.count && !mine) {
        this._begin(execution, cell, marks.count);
      }
    });
  }

  /** Puts the output in the place of the one before; null if there is none. */
  private _replace(id: string, output: IDisplayData): ICodeCellModel | null {
    const known = this._cellOf(id);
    for (const cell of known ? [known] : this._codeCells()) {
      const index = indexOf(cell, id);
      if (index >= 0) {
        cell.outputs.set(index, output);
        this._cells.set(id, cell);
        return cell;
      }
    }
    return null;
  }

  /** Puts the output into the cell that it names, if there was none before. */
  private _add(
    id: string,
    output: IDisplayData,
    marks: IMarks | null,
    begins: boolean,
    execution: string
  ): ICodeCellModel | null {
    const cell = this._codeCells().find(each => each.id === marks?.cell);
    // An output that was there and is not any more was cleared; so it is in a cell that this
    // page executes meanwhile.
    const cleared = this._cellOf(id) !== null;
    const followed = this._followed.get(execution)?.cell === cell;
    if (!cell || !marks || cleared || (cell.executionState === 'running' && !followed)) {
      return null;
    }
    if (this._begun.get(execution) === false) {
      cell.outputs.clear();
      this._begun.set(execution, true);
    }
    // As JupyterLab does for a cell that is executed: what it shows is the user's own.
    cell.trusted ||= cell.outputs.length === 0;
    cell.outputs.add(output);
    this._cells.set(id, cell);
    if (marks.stop && !begins) {
      const view = `${id}-footer`;
      cell.outputs.add({
        output_type: 'display_data',
        data: { [STOP_TYPE]: { ...marks.stop } },
        metadata: { truststram: { view } }
      });
      this._cells.set(view, cell);
    }
    return cell;
  }

  /** Marks the cell as running, and takes what else it shows until it is done. */
  private _begin(execution: string, cell: ICodeCellModel, count: number): void {
    if (this._followed.has(execution)) {
      return;
    }
    const onOutputs = (_: unknown, change: { type: string }): void => {
      // Somebody cleared them, or executes the cell anew.
      if (change.type === 'clear') {
        this._letGo(execution);
      }
    };
    cell.outputs.changed.connect(onOutputs);
    cell.executionState = 'running';
    this._followed.set(execution, { cell, count, whole: true, onOutputs });
  }

  private _follow(execution: string, message: KernelMessage.IIOPubMessage): void {
    const followed = this._followed.get(execution);
    if (KernelMessage.isExecuteInputMsg(message)) {
      // Of this execution nothing is missed: its first output replaces those of the one before.
      this._begun.set(execution, false);
    } else if (KernelMessage.isStatusMsg(message)) {
      if (message.content.execution_state === 'idle') {
        this._end(execution, true);
      }
    } else if (followed && KernelMessage.isClearOutputMsg(message)) {
      // Such a cell shows the same things again and again; the card is enough.
      followed.whole = false;
    } else if (followed?.whole && isPlain(message)) {
      const output = { ...message.content, output_type: message.header.msg_type } as IOutput;
      this._keepingClean(execution, () => followed.cell.outputs.add(output));
    }
  }

  private _end(execution: string, done: boolean): void {
    const followed = this._followed.get(execution);
    this._letGo(execution);
    if (followed) {
      const { cell, count } = followed;
      this._keepingClean(execution, () => {
        cell.executionState = 'idle';
        cell.executionCount = done ? count : null;
      });
    }
  }

  private _letGo(execution: string): void {
    const followed = this._followed.get(execution);
    followed?.cell.outputs.changed.disconnect(followed.onOutputs);
    this._followed.delete(execution);
  }

  private _onStatus(_: unknown, status: string): void {
    if (GONE.includes(status)) {
      [...this._followed.keys()].forEach(execution => this._end(execution, false));
      this._begun.clear();
    }
  }

  /**
   * Changes the notebook; an execution that began in another tab is saved by that one, and does
   * not make this one ask about the other's changes.
   */
  private _keepingClean(execution: string, change: () => void): void {
    const { model } = this._context;
    const { dirty } = model;
    change();
    if (this._begun.has(execution)) {
      model.dirty = dirty;
    }
  }

  private _cellOf(id: string): ICodeCellModel | null {
    const cell = this._cells.get(id);
    if (cell?.isDisposed) {
      // The file was read anew.
      this._cells.delete(id);
      return null;
    }
    return cell ?? null;
  }

  private _codeCells(): ICodeCellModel[] {
    const cells = [...this._context.model.cells];
    return cells.filter((cell): cell is ICodeCellModel => cell.type === 'code');
  }

  /** Displays that JupyterLab takes care of. */
  private _own = new Set<string>();
  /** Where a display was put. */
  private _cells = new Map<string, ICodeCellModel>();
  /** Executions that are followed, by the id of their request. */
  private _followed = new Map<string, IFollowedCell>();
  /** Executions of other pages that began before our eyes; whether their cell was cleared. */
  private _begun = new Map<string, boolean>();
}

function indexOf(cell: ICodeCellModel, id: string): number {
  for (let index = 0; index < cell.outputs.length; index++) {
    if (marksOf(cell.outputs.get(index).metadata)?.view === id) {
      return index;
    }
  }
  return -1;
}

function isPlain(message: KernelMessage.IIOPubMessage): boolean {
  return (
    KernelMessage.isStreamMsg(message) ||
    KernelMessage.isErrorMsg(message) ||
    KernelMessage.isExecuteResultMsg(message) ||
    KernelMessage.isDisplayDataMsg(message)
  );
}
