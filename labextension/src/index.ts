import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, Notification } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { Api } from './api/client';
import { markIcon } from './icons';
import { cellFor, insertCell } from './insert';
import { live } from './live/plugin';
import { PANEL_ID, TrustStramPanel } from './panel/widget';
import { PanelStore } from './store/store';
import { addTutorials } from './tutorials';

const PANEL_PLUGIN = 'truststram-lab:panel';
const SHOW = 'truststram-lab:show';

/** The side panel. */
const panel: JupyterFrontEndPlugin<void> = {
  id: PANEL_PLUGIN,
  description: 'Runs, models, deployments and federations in the side bar.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ISettingRegistry, ILayoutRestorer, ICommandPalette],
  activate: async (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    registry: ISettingRegistry | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null
  ) => {
    const settings = registry ? await registry.load(PANEL_PLUGIN) : null;
    let widget: TrustStramPanel | null = null;
    const wanted = (): boolean => settings?.get('panel').composite !== false;
    const apply = (): void => {
      if (wanted() && widget === null) {
        widget = makePanel(app, tracker);
        app.shell.add(widget, 'left', { rank: 700 });
        restorer?.add(widget, PANEL_ID);
      } else if (!wanted() && widget !== null) {
        widget.dispose();
        widget = null;
      }
      app.commands.notifyCommandChanged(SHOW);
    };
    app.commands.addCommand(SHOW, {
      label: 'Show the TrustStram Panel',
      icon: markIcon,
      isEnabled: () => widget !== null,
      execute: () => app.shell.activateById(PANEL_ID)
    });
    palette?.addItem({ command: SHOW, category: 'TrustStram' });
    settings?.changed.connect(apply);
    apply();
  }
};

function makePanel(app: JupyterFrontEnd, tracker: INotebookTracker): TrustStramPanel {
  const store = new PanelStore(new Api(app.serviceManager.serverSettings));
  return new TrustStramPanel({
    store,
    insert: async content => {
      const source = await cellFor(content, store.api);
      await insertCell(app, tracker, source, store.connection.status?.kind ?? 'sandbox');
      store.say('A cell was inserted.');
    },
    fail: message => Notification.error(message, { autoClose: 8000 })
  });
}

/** A card of the launcher for each tutorial. */
const tutorials: JupyterFrontEndPlugin<void> = {
  id: 'truststram-lab:tutorials',
  description: 'Tutorials in the launcher.',
  autoStart: true,
  requires: [ILauncher],
  optional: [ICommandPalette],
  activate: (app: JupyterFrontEnd, launcher: ILauncher, palette: ICommandPalette | null) =>
    addTutorials(app, new Api(app.serviceManager.serverSettings), launcher, palette)
};

export default [panel, tutorials, live];
