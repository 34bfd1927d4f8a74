import type { JupyterFrontEnd } from '@jupyterlab/application';
import { INotebookTracker, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';

import type { Api } from './api/client';
import type { Content } from './panel/rows';
import * as snippets from './snippets';
import { isActive } from './store/live';

/** The cell that shows, watches or asks what a row stands for. */
export async function cellFor(content: Content, api: Api): Promise<string> {
  switch (content.kind) {
    case 'run':
      return snippets.showRun(content.run.name, isActive(content.run));
    case 'federation':
      return snippets.showFederation(content.run);
    case 'version': {
      const { version, deployed } = content;
      const ref = deployed ? version.model : `${version.model}:${version.sequence}`;
      return snippets.predict(ref, version);
    }
    case 'model': {
      const { name, latest_version, deployed_version } = content.model;
      if (deployed_version !== null) {
        return snippets.predict(name, await api.version(name, String(deployed_version)));
      }
      return latest_version === null
        ? snippets.showModel(name)
        : snippets.predict(`${name}:${latest_version}`, await api.version(name, 'latest'));
    }
    case 'deployment': {
      const { name, model, version } = content.deployment;
      return snippets.predict(name, await api.version(model, String(version)));
    }
    case 'note':
      return content.example ?? snippets.FIRST_RUN;
    default:
      throw new Error('There is no cell for this row.');
  }
}

/**
 * Puts `source` into a new cell below the active one and selects it; it is run by the user.
 *
 * A notebook that does not load the commands yet gets a cell before that does. Without an open
 * notebook a new one is made.
 */
export async function insertCell(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  source: string,
  kind: 'sandbox' | 'platform'
): Promise<void> {
  const panel = tracker.currentWidget ?? (await newNotebook(app));
  await panel.context.ready;
  const model = panel.content.model;
  if (model === null || model.readOnly) {
    throw new Error('This notebook cannot be changed; open another one and insert again.');
  }
  const cells = [...model.cells];
  if (!cells.some(cell => snippets.loadsCommands(cell.sharedModel.getSource()))) {
    place(panel, snippets.signIn(kind));
  }
  place(panel, source);
  app.shell.activateById(panel.id);
  await NotebookActions.focusActiveCell(panel.content, { waitUntilReady: true });
}

async function newNotebook(app: JupyterFrontEnd): Promise<NotebookPanel> {
  const made: unknown = await app.commands.execute('notebook:create-new', { activate: true });
  if (!(made instanceof NotebookPanel)) {
    throw new Error('Open a notebook first; the cell goes into the one that is in front.');
  }
  return made;
}

function place(panel: NotebookPanel, source: string): void {
  const notebook = panel.content;
  const active = notebook.activeCell;
  const empty = active?.model.type === 'code' && active.model.sharedModel.getSource() === '';
  if (!empty) {
    NotebookActions.insertBelow(notebook);
  }
  if (notebook.activeCell?.model.type !== 'code') {
    NotebookActions.changeCellType(notebook, 'code');
  }
  notebook.activeCell?.model.sharedModel.setSource(source);
}
