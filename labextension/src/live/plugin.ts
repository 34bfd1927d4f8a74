import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import type { ICodeCellModel } from '@jupyterlab/cells';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import { Api } from '../api/client';
import { insertCell } from '../insert';
import { RunStates } from '../store/states';
import { LiveNotebook } from './notebook';
import { stopFactory } from './stop';

/** Before the view of a widget (-10), which only the page that ran the cell can draw. */
const RANK = -20;

/** Live cards and their Stop, also in a page that was loaded in mid-run. */
export const live: JupyterFrontEndPlugin<void> = {
  id: 'truststram-lab:live',
  description: 'Live cards that survive a reload of the page, and their Stop.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    const api = new Api(app.serviceManager.serverSettings);
    const states = new RunStates(api);
    const known = new WeakSet<NotebookPanel['context']>();
    const add = (panel: NotebookPanel): void => {
      const { context } = panel;
      const factory = stopFactory({
        states,
        cellOf: node => {
          const model = panel.content.widgets.find(cell => cell.node.contains(node))?.model;
          return model?.type === 'code' ? (model as ICodeCellModel) : null;
        },
        interrupt: async () => panel.sessionContext.session?.kernel?.interrupt(),
        insert: async source =>
          insertCell(app, tracker, source, (await api.status()).kind),
        fail: message => Notification.error(message, { autoClose: 8000 })
      });
      panel.content.rendermime.addFactory(factory, RANK);
      // A second view of a document shares its cells.
      if (!known.has(context)) {
        known.add(context);
        new LiveNotebook(context);
      }
    };
    tracker.forEach(add);
    tracker.widgetAdded.connect((_, panel) => add(panel));
  }
};
